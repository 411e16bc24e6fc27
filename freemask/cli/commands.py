"""Holds the registry of commands, and runs one: `main` is the entry point of `freemask`.

Each command has a function that adds its options and one that runs it. Nothing heavy is imported
before a command runs. Bad input ends with one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from freemask.cli import edit_commands, machine_commands, study_commands
from freemask.cli.interrupts import Interrupted
from freemask.cli.progress import echo_error
from freemask.types import InputError

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


COMMANDS: dict[str, tuple[str, Add, Run]] = {
    "demo": (
        "edit a drawn clip with the shipped checkpoint",
        edit_commands.add_demo,
        edit_commands.run_demo,
    ),
    "edit": ("edit one video", edit_commands.add_edit, edit_commands.run_edit),
    "masks": (
        "show the maps of a word and the mask that they give",
        edit_commands.add_masks,
        edit_commands.run_masks,
    ),
    "editors": (
        "list the base editors",
        machine_commands.add_editors,
        machine_commands.run_editors,
    ),
    "evaluate": (
        "compare methods with exact ground truth",
        study_commands.add_evaluate,
        study_commands.run_evaluate,
    ),
    "calibrate": (
        "measure MMC and write a codebook",
        study_commands.add_calibrate,
        study_commands.run_calibrate,
    ),
    "tune": (
        "tune Stable Diffusion on one clip (Tune-A-Video)",
        study_commands.add_tune,
        study_commands.run_tune,
    ),
    "profile": (
        "measure the kernels or an edit",
        machine_commands.add_profile,
        machine_commands.run_profile,
    ),
}


if __name__ == "__main__":
    sys.exit(main())
