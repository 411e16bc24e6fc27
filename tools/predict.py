"""Edit many clips: on one device, on several, on several machines.

    python tools/predict.py --config configs/predict.yaml jobs=jobs.jsonl trainer.devices=2
    torchrun --nnodes=2 --nproc-per-node=8 tools/predict.py trainer.devices=8 trainer.num_nodes=2

Every job writes `OUT/<job id>/`, and OUT/report.html shows them all. The same command goes on where
a run was stopped, however it was. Exit code: 0, 1 when a job failed (they are listed), 2 when the
run could not begin or had to end, 143 when it was told to stop.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from freemask.batch.run_folder import FAILED, table
from freemask.modules.callbacks import Stopped
from freemask.modules.trainer import STOPPED, _config, _end, _keep_quiet, _keep_trace, run
from freemask.types import InputError


def main() -> int:
    _keep_quiet()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/predict.yaml"))
    parser.add_argument("--retry-failed", action="store_true", help="also jobs that failed before")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()  # settings may stand anywhere
    try:
        config = _config(options.config, options.overrides)
    except InputError as error:
        return _end(str(error), 2)
    try:
        outcomes = run(config, retry_failed=options.retry_failed)
    except InputError as error:
        return _end(str(error), 2)
    except Stopped:
        return _end("told to stop; the same command goes on from here", STOPPED)
    except Exception as error:
        kept = _keep_trace(Path(config.out))
        return _end(f"ended by {type(error).__name__}: {error}; {kept}", 2)
    if not outcomes:
        return 0
    failed = sum(outcome.status == FAILED for outcome in outcomes)
    print(table(outcomes))  # noqa: T201
    print(f"{len(outcomes) - failed} of {len(outcomes)} jobs done; {config.out}/report.html")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
