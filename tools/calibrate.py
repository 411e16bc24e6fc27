"""Measure Mask Matching Cost on one device or on many; the same codebook either way.

    python tools/calibrate.py --checkpoint demo --data sprites --clips 200 --devices 2

Takes the arguments of `freemask calibrate`, and those of a Lightning trainer.
"""

from __future__ import annotations

import argparse
import sys

import lightning as L

from freemask.cli.arguments import add_calibration
from freemask.cli.commands import calibration_request
from freemask.cli.progress import warn
from freemask.modules.calibration import CalibrationModule
from freemask.types import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_calibration(parser)
    parser.add_argument("--devices", type=int, default=1, help="per node")
    parser.add_argument("--num-nodes", type=int, default=1)
    parser.add_argument("--strategy", default="auto", help="any of Lightning's")
    options = parser.parse_args()
    try:
        request = calibration_request(options)
        module = CalibrationModule(
            request,
            request.sources(),
            editor=options.editor,
            checkpoint=options.checkpoint,
            dtype=options.dtype,
            report=warn,
        )
        trainer = L.Trainer(
            accelerator="auto" if options.device == "auto" else options.device,
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy=options.strategy,
            logger=False,
            inference_mode=True,
        )
        trainer.predict(module, return_predictions=False)
    except InputError as error:
        print(f"calibrate: {error}", file=sys.stderr)  # noqa: T201
        return 2
    if module.summary:
        print(module.summary)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
