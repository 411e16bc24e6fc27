"""The command line: each command parses its arguments and calls one function.

Nothing heavy is imported until a command runs. A mistake in what was given ends with one sentence
and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from freemask.types import InputError, Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = make_parser()
    options, unknown = parser.parse_known_args(arguments)
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


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, flush=True)  # noqa: T201


def warn(text: str) -> None:
    """A line for the same person, that is no result."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def show_progress() -> Progress:
    """A bar per stage, on standard error."""
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def update(stage: str, done: int, total: int) -> None:
        bar = bars.setdefault(stage, tqdm(total=total, desc=f"{stage:>9}", leave=True))
        bar.update(done - bar.n)
        if done == total:
            bars.pop(stage).close()

    return update


def run_demo(options: argparse.Namespace) -> None:
    from freemask.demo import run

    say(run(options.config, options.out, options.overrides, show_progress()))


def run_edit(options: argparse.Namespace) -> None:
    from freemask.config import parse_overrides
    from freemask.jobs import Job, check_job
    from freemask.jobs import run_edit as run_job

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
    from freemask.editors import preflight

    preflight(options.editor, options.checkpoint, job.request(), video.size)
    editor = _load(options)
    result = run_job(editor, job, show_progress())
    result.save(options.out)
    say(f"{options.out}: edited.mp4, edited.gif, comparison.gif, masks.npz, result.json")
    say(f"mask from {result.masks.origin}; {sum(result.timings.values()):.1f} s")


def _load(options: argparse.Namespace) -> Any:
    from freemask.config import parse_overrides
    from freemask.editors import load_editor

    return load_editor(
        options.editor,
        checkpoint=options.checkpoint,
        device=options.device,
        dtype=options.dtype,
        options=parse_overrides(options.option),
    )


def _read(options: argparse.Namespace) -> Any:
    """The clip that the options of `_add_clip` ask for."""
    from freemask.video import read_video

    return read_video(
        options.video,
        frames=options.frames,
        size=options.size,
        start=options.start,
        stride=options.stride,
    )


def run_editors(options: argparse.Namespace) -> None:
    from freemask.editors import DEMO, available, editor_class

    if options.checkpoint or options.memory:
        from freemask.config import parse_overrides
        from freemask.footprint import report

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
        demo = DEMO[name].name if name in DEMO else "none"
        say(f"{name:<16} {demo:<16} {', '.join(editor_class(name).architectures)}")


def run_evaluate(options: argparse.Namespace) -> None:
    from freemask.benchmark import BenchmarkSettings
    from freemask.config import parse_overrides
    from freemask.evaluation import EvaluationRequest, evaluate

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

    from freemask.pipeline import calibrate

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
    """The `CalibrationRequest` that the options of `add_calibration` ask for."""
    from dataclasses import fields

    from freemask.calibration import CalibrationRequest

    given = {field.name: getattr(options, field.name) for field in fields(CalibrationRequest)}
    words = tuple(word for word in (options.words or "").split(",") if word)
    return CalibrationRequest(**given | {"words": words})


def run_masks(options: argparse.Namespace) -> None:
    from freemask.config import parse_overrides
    from freemask.editors import preflight
    from freemask.inspection import FILES, show_masks
    from freemask.result import check_writable
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
        from freemask.kernels import benchmark

        benchmark.main(options.rest, program="freemask profile --attention")
    elif options.edit:
        profile_edit(options.rest)
    else:
        raise InputError("nothing to measure; give --edit or --attention (and --help)")


def profile_edit(arguments: Sequence[str]) -> None:
    """Measure a whole edit."""
    from freemask.config import parse_overrides
    from freemask.profiling import ProfileRequest, profile

    parser = argparse.ArgumentParser(prog="freemask profile --edit")
    _add_editor(parser)
    parser.set_defaults(steps=4)
    parser.add_argument("--size", type=_size, default=(64, 64), metavar="HxW")
    parser.add_argument("--frames", type=_positive, default=8)
    parser.add_argument("--task", default="shape")
    parser.add_argument("--out", type=Path, default=Path("out/profile"))
    given = vars(parser.parse_args(arguments))
    given["options"] = parse_overrides(given.pop("option"))
    out = given.pop("out")
    say(profile(ProfileRequest(**given), out))
    say(f"{out}: edit.json, trace.json (open it in https://ui.perfetto.dev)")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="freemask", description="Edit videos from text, with no training."
    )
    parser.set_defaults(passes_on=False)  # whether a command parses unknown arguments itself
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser("demo", help="the main job on the shipped checkpoint and clip")
    demo.add_argument("--config", type=Path, help="default: the shipped configs/demo.yaml")
    demo.add_argument("--out", type=Path, default=Path("out/demo"))
    _add_overrides(demo)
    demo.set_defaults(run=run_demo)

    edit = commands.add_parser("edit", help="edit one video")
    edit.add_argument("--source", required=True, metavar="P0", help="what the video shows")
    edit.add_argument("--target", required=True, metavar="P1", help="what it should show")
    edit.add_argument("--words", metavar="OLD:NEW", help="the edited word in P0 and in P1")
    edit.add_argument("--task", default="shape", help="shape, attribute or style")
    edit.add_argument("--method", default="freemask", help="freemask, released, fatezero or ddim")
    edit.add_argument("--mask", metavar="FILE", help="use this mask (1 = edit)")
    edit.add_argument("--out", type=Path, default=Path("out/edit"))
    _add_clip(edit)
    edit.add_argument("--guidance", type=float, default=7.5)
    edit.add_argument("--seed", type=int, default=0)
    _add_editor(edit)
    _add_overrides(edit)
    edit.set_defaults(run=run_edit)

    masks = commands.add_parser("masks", help="show where a word is seen, and which map is trusted")
    masks.add_argument("--source", required=True, metavar="P0", help="what the video shows")
    masks.add_argument("--words", required=True, metavar="W", help="a word of it")
    masks.add_argument("--task", default="shape", help="whose mask settings are used")
    masks.add_argument("--out", type=Path, default=Path("out/masks"))
    _add_clip(masks)
    _add_editor(masks)
    _add_overrides(masks)
    masks.set_defaults(run=run_masks)

    editors = commands.add_parser("editors", help="list the base editors")
    editors.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="who loads this folder (or sd-1.5, sd-2.1, zeroscope), with what sites",
    )
    editors.add_argument("--memory", action="store_true", help="the GPU memory that an edit takes")
    editors.add_argument("--editor", help="only this one")
    editors.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    editors.add_argument("--frames", type=_positive, default=8)
    editors.add_argument("--size", type=_size, default=(512, 512), metavar="HxW")
    editors.add_argument("--steps", type=_positive, default=50)
    editors.add_argument("--dtype", default="float16")
    editors.set_defaults(run=run_editors)

    evaluate = commands.add_parser("evaluate", help="compare methods with exact ground truth")
    evaluate.add_argument("--clips", type=_positive, default=24, help="held-out clips per task")
    _add_folder(evaluate, "a folder in DAVIS layout instead, whose captions ask for edits")
    evaluate.add_argument("--methods", default="reconstruct,ddim,naive,freemask")
    evaluate.add_argument("--tasks", default="shape,attribute,style")
    evaluate.add_argument("--clip", metavar="PATH", help="a CLIP folder, or demo: CLIP metrics too")
    evaluate.add_argument(
        "--lpips", metavar="FILE", help="AlexNet's weights as torchvision has them"
    )
    evaluate.add_argument("--processes", type=_positive, default=1, help="one thread each")
    evaluate.add_argument("--out", type=Path, default=Path("out/evaluate"))
    _add_editor(evaluate)
    _add_overrides(evaluate)
    evaluate.set_defaults(run=run_evaluate)

    calibrate = commands.add_parser("calibrate", help="measure MMC and write a codebook")
    add_calibration(calibrate)
    calibrate.set_defaults(run=run_calibrate)

    tune = commands.add_parser("tune", help="tune Stable Diffusion on one clip (Tune-A-Video)")
    add_tuning(tune)
    tune.set_defaults(run=run_tune)

    profile = commands.add_parser("profile", help="measure kernels or an edit", add_help=False)
    profile.add_argument("--attention", action="store_true")
    profile.add_argument("--edit", action="store_true")
    profile.set_defaults(run=run_profile, passes_on=True)
    return parser


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """The options of a calibration."""
    _add_folder(parser, "a folder in DAVIS layout, or 'sprites', the default")
    parser.add_argument("--clips", type=_positive, default=64, help="of sprites")
    parser.add_argument("--words", metavar="W,W", help="only clips whose word is one of these")
    parser.add_argument("--out", type=Path, default=Path("codebook.json"))
    _add_editor(parser)


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """The options of a one-shot tuning."""
    parser.add_argument("--prompt", required=True, metavar="P", help="what the video shows")
    _add_clip(parser)
    parser.add_argument("--checkpoint", default="demo", help="a Stable Diffusion folder, or 'demo'")
    parser.add_argument("--steps", type=_positive, default=500)
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--precision", default="32-true", help="of Lightning: 16-mixed, bf16-mixed")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--sample-every", type=int, default=100, help="steps; 0 makes no samples")
    parser.add_argument("--save-every", type=_positive, default=50, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/tuned"))


def _add_folder(parser: argparse.ArgumentParser, data: str) -> None:
    parser.add_argument("--data", "--benchmark", default="sprites", metavar="DIR", help=data)
    parser.add_argument("--captions", type=Path, help="of a folder; default: its captions.yaml")
    parser.add_argument("--frames", type=_positive, default=8)
    parser.add_argument("--size", type=_size, metavar="HxW", help="default: 64x64 or the pictures'")


def _add_clip(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--video", required=True, help="mp4, gif, or a folder of images")
    parser.add_argument("--frames", type=_frames, default=8, metavar="N", help="or 'all'")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--size", type=_size, metavar="HxW", help="default: the video's own")


def _add_editor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--editor", default="zeroscope")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="a choice of the editor"
    )
    parser.add_argument("--checkpoint", default="demo", help="a folder, a hub id, or 'demo'")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16")
    parser.add_argument("--steps", type=_positive, default=50, help="denoising steps")


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that differ from the preset"
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _frames(text: str) -> int | None:
    return None if text == "all" else _positive(text)


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, for example 64x96")
    return int(parts[0]), int(parts[1])


def _words(text: str | None) -> tuple[str, str] | tuple[()]:
    if text is None:
        return ()
    old, colon, new = text.partition(":")
    if not (colon and old.strip() and new.strip()):
        raise InputError(f"--words is {text!r}; it must be OLD:NEW, for example bear:panda")
    return old.strip(), new.strip()


if __name__ == "__main__":
    sys.exit(main())
