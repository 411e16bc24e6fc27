"""Defines the commands: each has a function that adds its options and one that runs it.

Nothing heavy is imported before a command runs. Bad input ends with one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from freemask.cli.arguments import (
    add_editor_options,
    add_request,
    make_request,
    one_word,
    positive,
    size,
)
from freemask.cli.interrupts import Interrupted, interruptible
from freemask.cli.progress import echo, echo_error, show_progress
from freemask.editors.request import EditorRequest
from freemask.types import EditRequest, InputError

Add = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        parser = make_parser(arguments)
        options, unknown = parser.parse_known_args(arguments)
        if "overrides" in options and not any(word.startswith("-") for word in unknown):
            options.overrides += unknown  # argparse takes positional arguments in one place only
            unknown = []
        if unknown and not options.passes_on:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        options.rest = unknown
        options.run(options)
    except (InputError, FloatingPointError) as error:
        echo_error(f"freemask: {error}")
        return 2
    except Interrupted as message:
        echo_error(f"freemask: {message}")
        return 130
    except KeyboardInterrupt:
        echo_error("freemask: interrupted; nothing was written")
        return 130
    return 0


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser of all commands, with the options of those that `arguments` name."""
    parser = argparse.ArgumentParser(
        prog="freemask", description="Edit videos from text, with no training."
    )
    parser.set_defaults(passes_on=False)  # whether a command parses unknown arguments itself
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, (what, add, run) in COMMANDS.items():
        command = commands.add_parser(name, help=what, add_help=name != "profile")
        if name in arguments:
            add(command)
        command.set_defaults(run=run)
    return parser


def add_out(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--out`, the folder that a command writes."""
    parser.add_argument(
        "--out", type=Path, default=Path(default), help=f"folder of the result (default: {default})"
    )


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, help="a file like configs/demo.yaml, which is the default"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/demo"),
        help="folder of the result (default: out/demo)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="keys that differ from the config"
    )


def run_demo(options: argparse.Namespace) -> None:
    from freemask.evaluation.demo import run

    with interruptible(options.out):
        echo(run(options.config, options.out, options.overrides, show_progress()))


def add_edit(parser: argparse.ArgumentParser) -> None:
    from freemask.batch.jobs import ClipRequest, Job

    add_request(parser, EditRequest)
    add_request(parser, ClipRequest)
    add_request(parser, Job, skip=("id", "clip", "request"))
    add_request(parser, EditorRequest)
    add_out(parser, "out/edit")


def run_edit(options: argparse.Namespace) -> None:
    from freemask.batch.jobs import ClipRequest, Job, check_job, run_job

    clip, request = make_request(ClipRequest, options), make_request(EditRequest, options)
    job = Job(options.out.name or "edit", clip, request, options.mask)
    with interruptible(options.out, atomic=True):
        inputs = check_job(job, options.out)
        from freemask.editors.registry import preflight

        preflight(options.editor, options.checkpoint, request, inputs.video.size)
        editor = make_request(EditorRequest, options).load_editor()
        result = run_job(editor, job, inputs, progress=show_progress())
        result.save(options.out)
        echo(f"{options.out}: edited.mp4, edited.gif, comparison.gif, masks.npz, result.json")
        echo(f"mask from {result.masks.origin}; {sum(result.timings.values()):.1f} s")


def add_masks(parser: argparse.ArgumentParser) -> None:
    from freemask.batch.jobs import ClipRequest

    add_request(parser, EditRequest, skip=("target", "words", "method", "guidance", "seed"))
    parser.add_argument(
        "--words", type=one_word, required=True, metavar="W", help="the word to look for"
    )
    add_request(parser, ClipRequest)
    add_request(parser, EditorRequest)
    add_out(parser, "out/masks")


def run_masks(options: argparse.Namespace) -> None:
    from freemask.batch.jobs import ClipRequest
    from freemask.calibration.inspect import FILES, show_masks
    from freemask.editors.registry import preflight
    from freemask.io.atomic import check_writable

    words = (options.words, options.words)
    request = make_request(EditRequest, options, target=options.source, words=words)
    with interruptible(options.out, atomic=True):
        video = make_request(ClipRequest, options).read()
        check_writable(options.out, FILES)
        preflight(options.editor, options.checkpoint, request, video.size)
        editor = make_request(EditorRequest, options).load_editor()
        echo(show_masks(editor, video, request, options.out, progress=show_progress()))


def add_editors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="list who loads this folder (or sd-1.5, sd-2.1, zeroscope), and its attention sites",
    )
    parser.add_argument("--memory", action="store_true", help="list the GPU memory of an edit")
    parser.add_argument("--editor", help="list only this editor")
    add_editor_options(parser)
    for name, convert, default, metavar, what in (
        ("--frames", positive, 8, "N", "number of frames of the edit (default: 8)"),
        ("--size", size, (512, 512), "HxW", "size of its frames (default: 512x512)"),
        ("--steps", positive, 50, "N", "number of its denoising steps (default: 50)"),
        ("--dtype", str, "float16", None, "dtype of the weights (default: float16)"),
    ):
        parser.add_argument(name, type=convert, default=default, metavar=metavar, help=what)


def run_editors(options: argparse.Namespace) -> None:
    from freemask.config import parse_overrides
    from freemask.editors.registry import available, editor_class

    if options.checkpoint or options.memory:
        from freemask.profiling.checkpoint_report import checkpoint_report

        echo(
            checkpoint_report(
                options.checkpoint,
                editors=[options.editor] if options.editor else available(),
                memory=options.memory,
                frames=options.frames,
                size=options.size,
                steps=options.steps,
                dtype=options.dtype,
                options=parse_overrides(options.options),
            )
        )
        return
    echo(f"{'editor':<16} {'demo checkpoint':<16} loads")
    for name in available():
        kind = editor_class(name)
        echo(f"{name:<16} {kind.demo or 'none':<16} {', '.join(kind.architectures)}")


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    from freemask.evaluation.methods import BenchmarkSettings
    from freemask.evaluation.request import EvaluationRequest

    compared = ("reconstruct", "ddim", "naive", "freemask")
    unused = ("guidance", "cost_clips")
    add_request(parser, BenchmarkSettings, skip=unused, methods=compared)
    editor = tuple(EditorRequest.__dataclass_fields__)
    add_request(parser, EvaluationRequest, skip=("settings", *editor), out=Path("out/evaluate"))
    add_request(parser, EditorRequest)


def run_evaluate(options: argparse.Namespace) -> None:
    from freemask.evaluation.methods import BenchmarkSettings
    from freemask.evaluation.request import EvaluationRequest
    from freemask.modules.evaluation import evaluate

    settings = make_request(BenchmarkSettings, options)
    request = make_request(EvaluationRequest, options, settings=settings)
    with interruptible(options.out, parts=options.out / "parts"):
        echo(evaluate(request, echo_error))
        echo(f"written to {options.out}; open {options.out / 'index.html'} in a browser")


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    from freemask.calibration.request import CalibrationRequest

    add_request(parser, CalibrationRequest, out=Path("codebook.json"))
    add_request(parser, EditorRequest)


def run_calibrate(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from freemask.calibration.calibrate import calibrate
    from freemask.calibration.request import CalibrationRequest

    request = make_request(CalibrationRequest, options)
    with interruptible(options.out, parts=request.parts_folder):
        sources = request.sources()
        editor = make_request(EditorRequest, options).load_editor()
        folder = request.open_folder(editor)
        codebook = calibrate(
            editor,
            tqdm(sources, desc="calibrate", unit="clip"),
            data=request.describe(),
            steps=request.steps,
            folder=folder,
            echo=echo_error,
        )
        echo(request.finish(codebook, folder))


def add_tune(parser: argparse.ArgumentParser) -> None:
    from freemask.batch.jobs import ClipRequest
    from freemask.modules.tuning_request import TuningRequest

    add_request(parser, TuningRequest, out=Path("out/tuned"))
    add_request(parser, ClipRequest)


def run_tune(options: argparse.Namespace) -> None:
    from freemask.batch.jobs import ClipRequest
    from freemask.modules.tuning_request import TuningRequest

    request = make_request(TuningRequest, options)
    with interruptible(options.out, parts=request.parts_folder):
        video = make_request(ClipRequest, options).read()
        from freemask.modules.tuning import tune

        folder = tune(video, request)
        echo(f"{folder}: edit with --editor tune_a_video --checkpoint {folder}")


def add_profile(parser: argparse.ArgumentParser) -> None:
    """Adds the choice of the profile; each profile parses its own options."""
    parser.add_argument("--attention", action="store_true", help="measure the attention kernels")
    parser.add_argument("--edit", action="store_true", help="measure a whole edit")
    parser.set_defaults(passes_on=True, help=parser.format_help())


def run_profile(options: argparse.Namespace) -> None:
    if options.attention:
        from freemask.kernels.dev import benchmark

        benchmark.main(options.rest, program="freemask profile --attention")
    elif options.edit:
        profile_edit(options.rest)
    elif {"-h", "--help"} & set(options.rest):
        echo(f"{options.help}\n--edit --help and --attention --help list the options of each.")
    else:
        raise InputError("nothing to measure; give --edit or --attention (and --help)")


def profile_edit(arguments: Sequence[str]) -> None:
    from freemask.profiling.request import ProfileRequest

    parser = argparse.ArgumentParser(prog="freemask profile --edit")
    add_request(parser, ProfileRequest)
    add_out(parser, "out/profile")
    options = parser.parse_args(arguments)
    request = make_request(ProfileRequest, options)
    with interruptible(options.out):
        from freemask.profiling.profile import profile

        echo(profile(request, options.out))
        echo(f"{options.out}: edit.json, trace.json (open it in https://ui.perfetto.dev)")


COMMANDS: dict[str, tuple[str, Add, Run]] = {
    "demo": ("edit a drawn clip with the shipped checkpoint", add_demo, run_demo),
    "edit": ("edit one video", add_edit, run_edit),
    "masks": ("show the maps of a word and the mask that they give", add_masks, run_masks),
    "editors": ("list the base editors", add_editors, run_editors),
    "evaluate": ("compare methods with exact ground truth", add_evaluate, run_evaluate),
    "calibrate": ("measure MMC and write a codebook", add_calibrate, run_calibrate),
    "tune": ("tune Stable Diffusion on one clip (Tune-A-Video)", add_tune, run_tune),
    "profile": ("measure the kernels or an edit", add_profile, run_profile),
}


if __name__ == "__main__":
    sys.exit(main())
