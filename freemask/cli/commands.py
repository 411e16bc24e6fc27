"""The command line: each command parses its arguments and calls one function.

Nothing heavy is imported until a command runs. A mistake in what was given ends with one sentence
and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from freemask.cli import arguments as take
from freemask.cli.progress import say, show_progress, warn
from freemask.types import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = make_parser()
    options, unknown = parser.parse_known_args(arguments)
    if "overrides" in options and not any(word.startswith("-") for word in unknown):
        options.overrides += unknown  # argparse takes settings in one place only
        unknown = []
    if unknown and not options.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.rest = unknown
    try:
        options.run(options)
    except (InputError, FloatingPointError) as error:
        print(f"freemask: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("freemask: interrupted; nothing partial was left", file=sys.stderr)  # noqa: T201
        return 130
    return 0


def run_demo(options: argparse.Namespace) -> None:
    from freemask.evaluation.demo import run

    say(run(options.config, options.out, options.overrides, show_progress()))


def run_edit(options: argparse.Namespace) -> None:
    from freemask.batch.jobs import Job, check_job
    from freemask.batch.jobs import run_edit as run_job
    from freemask.config import parse_overrides

    job = Job(
        id=options.out.name or "edit",
        video=str(options.video),
        source=options.source,
        target=options.target,
        words=_words(options.words),
        task=options.task,
        method=options.method,
        frames=options.frames,
        start=options.start,
        stride=options.stride,
        size=options.size,
        mask=options.mask,
        steps=options.steps,
        guidance=options.guidance,
        seed=options.seed,
        overrides=parse_overrides(options.overrides),
    )
    video = check_job(job, options.out)
    from freemask.editors.registry import preflight

    preflight(options.editor, options.checkpoint, job.request(), video.size)
    editor = _load(options)
    result = run_job(editor, job, show_progress())
    result.save(options.out)
    say(f"{options.out}: edited.mp4, edited.gif, comparison.gif, masks.npz, result.json")
    say(f"mask from {result.masks.origin}; {sum(result.timings.values()):.1f} s")


def _load(options: argparse.Namespace) -> Any:
    from freemask.config import parse_overrides
    from freemask.editors.registry import load_editor

    return load_editor(
        options.editor,
        checkpoint=options.checkpoint,
        device=options.device,
        dtype=options.dtype,
        options=parse_overrides(options.option),
    )


def _read(options: argparse.Namespace) -> Any:
    """The clip that the options of `arguments.add_clip` ask for."""
    from freemask.io.video import read_video

    return read_video(
        options.video,
        frames=options.frames,
        size=options.size,
        start=options.start,
        stride=options.stride,
    )


def run_editors(options: argparse.Namespace) -> None:
    from freemask.editors.registry import available, editor_class

    if options.checkpoint or options.memory:
        from freemask.config import parse_overrides
        from freemask.profiling.footprint import report

        say(
            report(
                options.checkpoint,
                editors=[options.editor] if options.editor else available(),
                memory=options.memory,
                frames=options.frames,
                size=options.size,
                steps=options.steps,
                dtype=options.dtype,
                options=parse_overrides(options.option),
            )
        )
        return
    say(f"{'editor':<16} {'demo checkpoint':<16} loads")
    for name in available():
        kind = editor_class(name)
        say(f"{name:<16} {kind.demo or 'none':<16} {', '.join(kind.architectures)}")


def run_evaluate(options: argparse.Namespace) -> None:
    from freemask.config import parse_overrides
    from freemask.evaluation.evaluate import EvaluationRequest, evaluate
    from freemask.evaluation.methods import BenchmarkSettings

    settings = BenchmarkSettings(
        methods=tuple(options.methods.split(",")),
        steps=options.steps,
        overrides=parse_overrides(options.overrides),
        clip=options.clip,
        lpips=options.lpips,
    )
    request = EvaluationRequest(
        options.out,
        settings,
        tasks=tuple(options.tasks.split(",")),
        data=options.data,
        clips=options.clips,
        captions=options.captions,
        size=options.size,
        frames=options.frames,
        editor=options.editor,
        checkpoint=options.checkpoint,
        device=options.device,
        dtype=options.dtype,
        options=parse_overrides(options.option),
        processes=options.processes,
    )
    say(evaluate(request, warn))
    say(f"written to {options.out}; open {options.out / 'index.html'} in a browser")


def run_calibrate(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from freemask.calibration.calibrate import calibrate

    request = calibration_request(options)
    sources = request.sources()
    editor = _load(options)
    parts = request.open_parts(editor)
    codebook = calibrate(
        editor,
        tqdm(sources, desc="calibrate", unit="clip"),
        data=request.describe(),
        steps=request.steps,
        parts=parts,
        report=warn,
    )
    say(request.finish(codebook, parts))


def calibration_request(options: argparse.Namespace) -> Any:
    """The `CalibrationRequest` that the options of `arguments.add_calibration` ask for."""
    from dataclasses import fields

    from freemask.calibration.calibrate import CalibrationRequest

    given = {field.name: getattr(options, field.name) for field in fields(CalibrationRequest)}
    words = tuple(word for word in (options.words or "").split(",") if word)
    return CalibrationRequest(**given | {"words": words})


def run_masks(options: argparse.Namespace) -> None:
    from freemask.calibration.inspect import FILES, show_masks
    from freemask.config import parse_overrides
    from freemask.editors.registry import preflight
    from freemask.io.atomic import check_writable
    from freemask.types import EditRequest

    request = EditRequest(
        options.source,
        options.source,
        words=(options.words, options.words),
        task=options.task,
        steps=options.steps,
        overrides=parse_overrides(options.overrides),
    )
    video = _read(options)
    check_writable(options.out, FILES)
    preflight(options.editor, options.checkpoint, request, video.size)
    editor = _load(options)
    say(show_masks(editor, video, request, options.out, progress=show_progress()))


def run_tune(options: argparse.Namespace) -> None:
    from dataclasses import fields

    from freemask.modules.tuning import TuningRequest, tune

    given = {field.name: getattr(options, field.name) for field in fields(TuningRequest)}
    video = _read(options)
    folder = tune(video, TuningRequest(**given))
    say(f"{folder}: edit with --editor tune_a_video --checkpoint {folder}")


def run_profile(options: argparse.Namespace) -> None:
    if options.attention:
        from freemask.kernels.dev import benchmark

        benchmark.main(options.rest, program="freemask profile --attention")
    elif options.edit:
        profile_edit(options.rest)
    else:
        raise InputError("nothing to measure; give --edit or --attention (and --help)")


def profile_edit(arguments: Sequence[str]) -> None:
    """Measure a whole edit."""
    from freemask.config import parse_overrides
    from freemask.profiling.profile import ProfileRequest, profile

    parser = argparse.ArgumentParser(prog="freemask profile --edit")
    take.add_profile(parser)
    given = vars(parser.parse_args(arguments))
    given["options"] = parse_overrides(given.pop("option"))
    out = given.pop("out")
    say(profile(ProfileRequest(**given), out))
    say(f"{out}: edit.json, trace.json (open it in https://ui.perfetto.dev)")


def add_what_to_profile(parser: argparse.ArgumentParser) -> None:
    """Which of the two profiles; each parses its own options."""
    parser.add_argument("--attention", action="store_true")
    parser.add_argument("--edit", action="store_true")
    parser.set_defaults(passes_on=True)


Add = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], None]
COMMANDS: dict[str, tuple[str, Add, Run]] = {
    "demo": ("the main job on the shipped checkpoint and clip", take.add_demo, run_demo),
    "edit": ("edit one video", take.add_edit, run_edit),
    "masks": ("show where a word is seen, and which map is trusted", take.add_masks, run_masks),
    "editors": ("list the base editors", take.add_editors, run_editors),
    "evaluate": ("compare methods with exact ground truth", take.add_evaluation, run_evaluate),
    "calibrate": ("measure MMC and write a codebook", take.add_calibration, run_calibrate),
    "tune": ("tune Stable Diffusion on one clip (Tune-A-Video)", take.add_tuning, run_tune),
    "profile": ("measure kernels or an edit", add_what_to_profile, run_profile),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="freemask", description="Edit videos from text, with no training."
    )
    parser.set_defaults(passes_on=False)  # whether a command parses unknown arguments itself
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, (what, add, run) in COMMANDS.items():
        command = commands.add_parser(name, help=what, add_help=add is not add_what_to_profile)
        add(command)
        command.set_defaults(run=run)
    return parser


def _words(text: str | None) -> tuple[str, str] | tuple[()]:
    if text is None:
        return ()
    old, colon, new = text.partition(":")
    if not (colon and old.strip() and new.strip()):
        raise InputError(f"--words is {text!r}; it must be OLD:NEW, for example bear:panda")
    return old.strip(), new.strip()


if __name__ == "__main__":
    sys.exit(main())
