"""Compares editing methods on samples with ground truth; the same as `freemask evaluate`.

python tools/evaluate.py --clips 24 --methods ddim,naive,freemask --out out/evaluate
"""

from __future__ import annotations

import sys

from freemask.cli.commands import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
