"""Defines the commands that look at checkpoints and the machine: `editors`, `profile`, `doctor`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from freemask.cli.arguments import (
    add_editor_options,
    add_out,
    add_request,
    make_request,
    path,
    positive,
    size,
)
from freemask.cli.interrupts import interruptible
from freemask.cli.progress import echo
from freemask.editors.request import EditorRequest
from freemask.types import InputError


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


def add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        type=path,
        default=Path("out/doctor.json"),
        metavar="FILE",
        help="file of the report (default: out/doctor.json)",
    )


def run_doctor(options: argparse.Namespace) -> int:
    """Prints the findings and writes them; returns 1 if something is broken."""
    from freemask.profiling.doctor import examine

    with interruptible(options.json):
        report = examine(echo)
        try:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(report, indent=1) + "\n")
        except OSError as error:
            raise InputError(
                f"{options.json} cannot be written ({error.strerror}); give --json FILE elsewhere"
            ) from error
        broken = f"{report['broken']} broken" if report["broken"] else "nothing is broken"
        echo(f"{broken}; {options.json} holds the report, for an issue")
    return 1 if report["broken"] else 0


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=path, help="the folder to write")
    add_request(parser, EditorRequest, skip=("device", "dtype", "lora", "options"))


def run_export(options: argparse.Namespace) -> None:
    from freemask.modular.export import export

    with interruptible(options.folder, atomic=True):
        echo(export(make_request(EditorRequest, options), options.folder))
