"""Prints results on standard output and remarks on standard error; adds `--quiet` and `--force`."""

from __future__ import annotations

import argparse
import sys


def echo(text: str) -> None:
    """Prints a result."""
    print(text, flush=True)  # noqa: T201


def echo_error(text: str) -> None:
    """Prints an error or a remark on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Adds `--quiet`, which hides progress; results, remarks and errors stay."""
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def add_force(parser: argparse.ArgumentParser) -> None:
    """Adds `--force`, which skips the memory estimate."""
    parser.add_argument(
        "--force", action="store_true", help="try although the estimate says that memory is short"
    )
