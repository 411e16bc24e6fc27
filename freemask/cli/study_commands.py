"""Defines the commands that measure or train: `evaluate`, `calibrate`, `tune`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from freemask.cli.arguments import add_request, make_request
from freemask.cli.interrupts import interruptible
from freemask.cli.progress import add_quiet, echo, echo_error
from freemask.editors.request import EditorRequest
from freemask.progress import SpacedLines, in_terminal, show_progress, track


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    from freemask.evaluation.methods import BenchmarkSettings
    from freemask.evaluation.request import EvaluationRequest

    add_request(parser, BenchmarkSettings, skip=("cost_clips",))
    editor = tuple(EditorRequest.__dataclass_fields__)
    add_request(parser, EvaluationRequest, skip=("settings", *editor), out=Path("out/evaluate"))
    add_request(parser, EditorRequest)
    add_quiet(parser)


def run_evaluate(options: argparse.Namespace) -> None:
    from freemask.evaluation.methods import BenchmarkSettings
    from freemask.evaluation.request import EvaluationRequest
    from freemask.modules.evaluation import evaluate

    settings = make_request(BenchmarkSettings, options)
    request = make_request(EvaluationRequest, options, settings=settings)
    with interruptible(options.out, parts=options.out / "parts"):
        echo(evaluate(request, SampleEcho(options.quiet)))
        echo(f"written to {options.out}; open {options.out / 'index.html'} in a browser")


class SampleEcho:
    """Prints the lines of `evaluate` on standard error: all in a terminal, spaced ones in a log.

    quiet: whether only samples that are left out are printed.

    It is picklable, because every process of an evaluation has one.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.lines = quiet, SpacedLines()

    def __call__(self, line: str) -> None:
        """Prints the line of a sample."""
        if "left out" in line or (in_terminal(sys.stderr) and not self.quiet):
            echo_error(line)
        elif not self.quiet and self.lines.due:
            self.lines.write(line)


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    from freemask.calibration.request import CalibrationRequest

    add_request(parser, CalibrationRequest, out=Path("codebook.json"))
    add_request(parser, EditorRequest)
    add_quiet(parser)


def run_calibrate(options: argparse.Namespace) -> None:
    from freemask.calibration.calibrate import calibrate
    from freemask.calibration.request import CalibrationRequest

    request = make_request(CalibrationRequest, options)
    wanted = make_request(EditorRequest, options)
    with interruptible(options.out, parts=request.parts_folder):
        request = request.resolve(wanted)
        with interruptible(parts=request.labels_file):
            request.label(options.device, echo_error, show_progress(quiet=options.quiet))
        if request.review:
            return
        sources = request.sources()
        editor = wanted.load_editor()
        folder = request.open_folder(editor)
        codebook = calibrate(
            editor,
            track(sources, "calibrate", show_progress(quiet=options.quiet)),
            data=request.describe(),
            steps=request.steps,
            unlabelled=request.unlabelled,
            folder=folder,
            echo=echo_error,
        )
        echo(request.finish(codebook, folder))


def add_tune(parser: argparse.ArgumentParser) -> None:
    from freemask.batch.jobs import ClipRequest
    from freemask.modules.tuning_request import TuningRequest

    add_request(parser, TuningRequest, out=Path("out/tuned"))
    add_request(parser, ClipRequest)
    add_quiet(parser)


def run_tune(options: argparse.Namespace) -> None:
    from freemask.batch.jobs import ClipRequest
    from freemask.modules.tuning_request import TuningRequest

    request = make_request(TuningRequest, options)
    with interruptible(options.out, parts=request.parts_folder):
        from freemask.editors.registry import native_frame
        from freemask.modules.tuning import tune

        native = partial(
            native_frame,
            "tune_a_video",
            request.checkpoint,
            revision=request.revision,
            variant=request.variant,
        )
        video = make_request(ClipRequest, options).read(native)
        folder = tune(video, request, show_progress(quiet=options.quiet))
        echo(f"{folder}: edit with --editor tune_a_video --checkpoint {folder}")
