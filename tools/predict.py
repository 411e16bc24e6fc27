"""Edit many clips, on one device or on many.

    python tools/predict.py --config configs/predict.yaml jobs=jobs.jsonl trainer.devices=2

Every job writes `OUT/<job id>/`. The exit code is 1 when any job failed, and they are listed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import OmegaConf

from freemask import editors
from freemask.config import merge, parse_overrides
from freemask.jobs import load_jobs
from freemask.modules.predict import EditDataModule, FreeMaskModule, ResultWriter, StageBar
from freemask.types import InputError


@dataclass
class TrainerConfig:
    """What `lightning.Trainer` is given."""

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"


@dataclass
class PredictConfig:
    """A run: which editor with which of its options, which jobs, where to."""

    editor: str = "zeroscope"
    checkpoint: str = "demo"
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    jobs: str = ""
    out: str = "out/predict"
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


def run(config: PredictConfig) -> list[tuple[str, str]]:
    """Run all jobs; returns every id with its error or "", and nothing on rank 1 and up."""
    out = Path(config.out)
    jobs = load_jobs(config.jobs)
    editors.editor_class(config.editor)
    out.mkdir(parents=True, exist_ok=True)
    writer = ResultWriter(out)
    trainer = L.Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        num_nodes=config.trainer.num_nodes,
        strategy=config.trainer.strategy,
        callbacks=[writer, StageBar()],
        logger=False,
        inference_mode=True,
    )
    module = FreeMaskModule(
        editor=config.editor,
        checkpoint=config.checkpoint,
        dtype=config.dtype,
        options=config.options,
    )
    trainer.predict(module, datamodule=EditDataModule(jobs), return_predictions=False)
    return writer.outcomes if trainer.is_global_zero else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/predict.yaml"))
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    try:
        if not options.config.is_file():
            raise InputError(f"config {options.config} does not exist")
        values = OmegaConf.load(options.config)
        outcomes = run(merge(PredictConfig, values, parse_overrides(options.overrides)))
    except InputError as error:
        print(f"predict: {error}", file=sys.stderr)  # noqa: T201
        return 2
    failed = [(name, error) for name, error in outcomes if error]
    if outcomes:
        print(f"{len(outcomes) - len(failed)} of {len(outcomes)} jobs done")  # noqa: T201
    for name, reason in failed:
        print(f"failed: {name}: {reason}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
