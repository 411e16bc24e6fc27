"""Tune Stable Diffusion on one clip: `freemask tune`.

python tools/tune.py --video clip.mp4 --prompt "a bear on the grass" --out out/tuned
"""

import sys

from freemask.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["tune", *sys.argv[1:]]))
