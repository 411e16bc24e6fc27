"""Compare methods with exact ground truth: `freemask evaluate`.

python tools/evaluate.py --clips 24 --methods ddim,naive,freemask --out out/evaluate
"""

import sys

from freemask.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
