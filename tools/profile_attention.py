"""Measures the kernels against their baselines: `freemask profile --attention`.

python tools/profile_attention.py --size "self 1024" --coverage 0.1 0.3 --out out/profile
"""

from __future__ import annotations

import sys

from freemask.cli.commands import main

if __name__ == "__main__":
    raise SystemExit(main(["profile", "--attention", *sys.argv[1:]]))
