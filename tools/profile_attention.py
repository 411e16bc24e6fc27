"""Measure the kernels against their baselines: a table, `attention.json` and `attention.png`.

python tools/profile_attention.py --size "self 1024" --coverage 0.1 0.3 --out out/profile
"""

from __future__ import annotations

from freemask.kernels.dev.benchmark import main

if __name__ == "__main__":
    raise SystemExit(main())
