"""Edits many clips: `freemask predict` as a script, for launchers that start a file.

    python tools/predict.py --config configs/predict.yaml jobs=jobs.jsonl trainer.devices=2
    torchrun --nnodes=2 --nproc-per-node=8 tools/predict.py trainer.devices=8 trainer.num_nodes=2

Every job writes OUT/<job id>/, and OUT/report.html shows all of them. The same command continues a
run that ended early.
"""

from __future__ import annotations

import sys

from freemask.cli.commands import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
