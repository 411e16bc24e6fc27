"""Defines `predict`, which edits a list of jobs on one device, on several, or on several machines.

Exit code: 0; 1 if a job failed; 2 if the run could not start or had to end; 130 after Ctrl-C; 143
after SIGTERM.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from freemask.cli.arguments import path
from freemask.cli.progress import add_quiet, echo
from freemask.types import InputError

if TYPE_CHECKING:
    from freemask.batch.run_folder import Outcome


def add_predict(parser: argparse.ArgumentParser) -> None:
    from freemask.settings.presets import config_folder

    parser.add_argument(
        "--config",
        type=path,
        default=config_folder() / "predict.yaml",
        help="a YAML file with settings of the run (default: the packaged predict.yaml)",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="also run jobs that failed in an earlier run"
    )
    add_quiet(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="keys that differ from the config, such as jobs=jobs.csv and trainer.devices=8",
    )


def run_predict(options: argparse.Namespace) -> int:
    from freemask.modules.callbacks import Stopped
    from freemask.modules.quiet import quieten_lightning
    from freemask.modules.trainer import (
        INTERRUPTED,
        STOPPED,
        echo_end,
        load_config,
        run,
        write_traceback,
    )

    quieten_lightning()
    out: Path | None = None
    try:
        config = load_config(options.config, options.overrides)
        out = Path(config.out)
        outcomes = run(config, retry_failed=options.retry_failed, quiet=options.quiet)
    except InputError as error:
        echo_end(str(error))
        return 2
    except Stopped:
        echo_end("stopped by SIGTERM; the same command continues from here")
        return STOPPED
    except KeyboardInterrupt:
        echo_end("interrupted; the same command continues from here")
        return INTERRUPTED
    except Exception as error:
        if out is None:
            raise
        echo_end(f"ended by {type(error).__name__}: {error}; {write_traceback(out)}")
        return 2
    return _echo_outcomes(outcomes, out)


def _echo_outcomes(outcomes: list[Outcome], out: Path) -> int:
    """Prints the table of a run. Returns the exit code."""
    from freemask.batch.run_folder import FAILED, table

    if not outcomes:  # this is not the first rank
        return 0
    failed = sum(outcome.status == FAILED for outcome in outcomes)
    echo(table(outcomes))
    echo(f"{len(outcomes) - failed} of {len(outcomes)} jobs done; {out}/report.html")
    return 1 if failed else 0
