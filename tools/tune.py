"""Tunes Stable Diffusion on one clip, as `freemask tune`.

python tools/tune.py --video clip.mp4 --prompt "a bear on the grass" --out out/tuned
"""

from __future__ import annotations

import sys

from freemask.cli.commands import main

if __name__ == "__main__":
    raise SystemExit(main(["tune", *sys.argv[1:]]))
