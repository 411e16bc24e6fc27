"""Edits many clips: on one device, on several, or on several machines.

    python tools/predict.py --config configs/predict.yaml jobs=jobs.jsonl trainer.devices=2
    torchrun --nnodes=2 --nproc-per-node=8 tools/predict.py trainer.devices=8 trainer.num_nodes=2

Every job writes OUT/<job id>/, and OUT/report.html shows all of them. The same command continues a
run that ended early. Exit code: 0; 1 if a job failed (the table lists them); 2 if the run could not
start or had to end; 130 after Ctrl-C; 143 after SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from freemask.batch.run_folder import FAILED, table
from freemask.modules.callbacks import Stopped
from freemask.modules.trainer import (
    INTERRUPTED,
    STOPPED,
    echo_end,
    load_config,
    run,
    silence_lightning,
    write_traceback,
)
from freemask.types import InputError


def main() -> int:
    """Runs the tool; returns the exit code."""
    silence_lightning()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/predict.yaml"))
    parser.add_argument(
        "--retry-failed", action="store_true", help="also run jobs that failed in an earlier run"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()  # overrides may stand anywhere
    try:
        config = load_config(options.config, options.overrides)
    except InputError as error:
        echo_end(str(error))
        return 2
    try:
        outcomes = run(config, retry_failed=options.retry_failed)
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
        echo_end(f"ended by {type(error).__name__}: {error}; {write_traceback(Path(config.out))}")
        return 2
    if not outcomes:
        return 0
    failed = sum(outcome.status == FAILED for outcome in outcomes)
    print(table(outcomes))  # noqa: T201
    print(f"{len(outcomes) - failed} of {len(outcomes)} jobs done; {config.out}/report.html")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
