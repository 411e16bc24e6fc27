"""Holds the registry of commands, and runs one: `main` is the entry point of `freemask`.

Each command has a function that adds its options and one that runs it. Nothing heavy is imported
before a command runs. Bad input ends with one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import freemask
from freemask.cli import (
    edit_commands,
    machine_commands,
    predict_command,
    study_commands,
    ui_command,
)
from freemask.cli.interrupts import Interrupted
from freemask.cli.progress import echo_error
from freemask.types import InputError

Add = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int | None]
BROKEN_PIPE = 141  # 128 + SIGPIPE


@dataclass(frozen=True)
class Command:
    """A command.

    help: its description in a few words.
    add: adds its options to a parser.
    run: runs it with parsed options, and returns its exit code; None stands for 0.
    example: a command line that shows its use.
    """

    help: str
    add: Add
    run: Run
    example: str


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
        return options.run(options) or 0
    except (InputError, FloatingPointError) as error:
        echo_error(f"freemask: {error}")
        return 2
    except Interrupted as message:
        echo_error(f"freemask: {message}")
        return message.code
    except KeyboardInterrupt:
        echo_error("freemask: interrupted; nothing was written")
        return 130
    except BrokenPipeError:  # the reader of the output has ended, as in `freemask editors | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser of all commands, with the options of those that `arguments` name."""
    parser = argparse.ArgumentParser(
        prog="freemask", description="Edit videos from text, with no training."
    )
    parser.add_argument("--version", action="version", version=f"freemask {freemask.__version__}")
    parser.set_defaults(passes_on=False)  # whether a command parses unknown arguments itself
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, command in COMMANDS.items():
        parsed = commands.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=name != "profile",
        )
        if name in arguments:
            command.add(parsed)
        parsed.set_defaults(run=command.run)
    return parser


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "edit a drawn clip with the shipped checkpoint",
        edit_commands.add_demo,
        edit_commands.run_demo,
        "freemask demo --out out/demo",
    ),
    "edit": Command(
        "edit one video",
        edit_commands.add_edit,
        edit_commands.run_edit,
        "freemask edit --video bear.mp4 --source 'a bear on grass' --target 'a panda on grass' \\\n"
        "      --checkpoint cerspense/zeroscope_v2_576w --frames 16 --out out/panda",
    ),
    "predict": Command(
        "edit a list of jobs, on one device or on many",
        predict_command.add_predict,
        predict_command.run_predict,
        "freemask predict jobs=jobs.csv out=out/mine trainer.devices=8",
    ),
    "export-diffusers": Command(
        "write a folder that diffusers' ModularPipeline loads as FreeMask",
        machine_commands.add_export,
        machine_commands.run_export,
        "freemask export-diffusers out/freemask-wan --editor wan \\\n"
        "      --checkpoint Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    ),
    "ui": Command(
        "serve a page on which clips are edited",
        ui_command.add_ui,
        ui_command.run_ui,
        "freemask ui --editor wan --checkpoint Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    ),
    "masks": Command(
        "show the maps of a word and the mask that they give",
        edit_commands.add_masks,
        edit_commands.run_masks,
        "freemask masks --video bear.mp4 --source 'a bear on grass' --words bear",
    ),
    "editors": Command(
        "list the base editors",
        machine_commands.add_editors,
        machine_commands.run_editors,
        "freemask editors --checkpoint sd-1.5 --memory --frames 16",
    ),
    "evaluate": Command(
        "compare methods on sprites, on FiVE-Bench or on your own clips",
        study_commands.add_evaluate,
        study_commands.run_evaluate,
        "freemask evaluate --clips 6 --steps 10 --methods naive,freemask",
    ),
    "calibrate": Command(
        "measure MMC and write a codebook",
        study_commands.add_calibrate,
        study_commands.run_calibrate,
        "freemask calibrate --data DAVIS --checkpoint ./my-checkpoint --out codebook.json",
    ),
    "tune": Command(
        "tune Stable Diffusion on one clip (Tune-A-Video)",
        study_commands.add_tune,
        study_commands.run_tune,
        "freemask tune --video bear.mp4 --prompt 'a bear on grass' --out out/tuned",
    ),
    "doctor": Command(
        "examine this machine: libraries, codecs, devices, editors, kernels",
        machine_commands.add_doctor,
        machine_commands.run_doctor,
        "freemask doctor --json doctor.json",
    ),
    "profile": Command(
        "measure the kernels or an edit",
        machine_commands.add_profile,
        machine_commands.run_profile,
        "freemask profile --edit --frames 8",
    ),
}


if __name__ == "__main__":
    sys.exit(main())
