"""Measures Mask Matching Cost on one device or on many; the codebook is the same.

    python tools/calibrate.py --checkpoint demo --data sprites --clips 200 --devices 2

Takes the options of `freemask calibrate`, and those of a Lightning trainer.
"""

from __future__ import annotations

import argparse
import sys

import lightning as L

from freemask.calibration.request import CalibrationRequest
from freemask.cli.arguments import make_request
from freemask.cli.interrupts import Interrupted, interruptible
from freemask.cli.progress import echo, echo_error
from freemask.cli.study_commands import add_calibrate
from freemask.editors.request import EditorRequest
from freemask.modules.calibration import CalibrationModule
from freemask.modules.interrupts import keyboard_interrupts
from freemask.modules.quiet import quieten_lightning
from freemask.progress import show_progress
from freemask.types import InputError


def main() -> int:
    """Runs the tool; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_calibrate(parser)
    parser.add_argument("--devices", type=int, default=1, help="devices per node (default: 1)")
    parser.add_argument("--num-nodes", type=int, default=1, help="number of nodes (default: 1)")
    parser.add_argument("--strategy", default="auto", help="strategy of Lightning (default: auto)")
    options = parser.parse_args()
    try:
        request = make_request(CalibrationRequest, options)
        with interruptible(request.out, parts=request.parts_folder), keyboard_interrupts():
            summary = calibrate(request, options)
    except InputError as error:
        echo_error(f"calibrate: {error}")
        return 2
    except Interrupted as message:
        echo_error(f"calibrate: {message}")
        return message.code
    if summary:
        echo(summary)
    return 0


def calibrate(request: CalibrationRequest, options: argparse.Namespace) -> str:
    """Measures all clips; returns a summary on the first rank, and nothing on the others."""
    quieten_lightning()
    wanted = make_request(EditorRequest, options)
    request = request.resolve(wanted)
    with interruptible(parts=request.labels_file):  # one process labels, the others wait for it
        request.label(options.device, echo_error, show_progress(quiet=options.quiet))
    if request.review:
        return ""
    module = CalibrationModule(
        request,
        request.sources(),
        wanted,
        echo=echo_error,
        progress=show_progress(quiet=options.quiet),
    )
    trainer = L.Trainer(
        accelerator="auto" if options.device == "auto" else options.device,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=options.strategy,
        logger=False,
        enable_progress_bar=False,
        inference_mode=True,
    )
    trainer.predict(module, return_predictions=False)
    return module.summary


if __name__ == "__main__":
    sys.exit(main())
