"""freemask.modules.trainer: docstring to be written."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from yaml import YAMLError

from freemask import editors
from freemask.batch import report as wall
from freemask.batch.job_list import load_jobs
from freemask.batch.run_folder import Outcome, RunFolder
from freemask.config import merge, nearest, parse_overrides
from freemask.modules.callbacks import OutcomeLogger, Preemption, ResultWriter, StageBar
from freemask.modules.editing import EditDataModule, FreeMaskModule
from freemask.types import InputError

LOGGERS = {"none": None, "csv": CSVLogger, "tensorboard": TensorBoardLogger}
TRUE_PRECISIONS = {"32-true": "float32", "16-true": "float16", "bf16-true": "bfloat16"}
STOPPED = 143  # 128 + SIGTERM


@dataclass
class TrainerConfig:
    """What `lightning.Trainer` is given. precision: None computes as `dtype` says."""

    accelerator: str = "auto"
    devices: Any = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str | None = None
    logger: str = "none"


@dataclass
class PredictConfig:
    """A run: which editor with which of its options, which jobs, where to.

    cache: folder of the inversions, by default in `out`; cache_gib: how large it may grow.
    """

    editor: str = "zeroscope"
    checkpoint: str = "demo"
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    jobs: str = ""
    out: str = "out/predict"
    cache: str | None = None
    cache_gib: float = 20.0
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


def run(config: PredictConfig, *, retry_failed: bool) -> list[Outcome]:
    """Run all jobs; returns what became of each on rank 0, and nothing on the others."""
    jobs = load_jobs(config.jobs)
    editors.editor_class(config.editor)
    folder = RunFolder(Path(config.out))
    dtype = _dtype(config)
    with folder.held() if _first() else nullcontext():
        trainer = _trainer(config.trainer, folder, len(jobs))
        module = FreeMaskModule(
            editor=config.editor,
            checkpoint=config.checkpoint,
            run=folder,
            dtype=dtype,
            options=config.options,
            retry_failed=retry_failed,
            cache=Path(config.cache) if config.cache else None,
            cache_limit=round(config.cache_gib * 2**30),
        )
        trainer.predict(module, datamodule=EditDataModule(jobs), return_predictions=False)
        if not trainer.is_global_zero:
            return []
        outcomes = folder.outcomes()
        (folder.out / "report.html").write_text(wall.page(folder.out, outcomes))
        return outcomes


def _trainer(config: TrainerConfig, folder: RunFolder, jobs: int) -> L.Trainer:
    if config.logger not in LOGGERS:
        raise InputError(
            f"unknown trainer.logger {config.logger!r}{nearest(config.logger, LOGGERS)}"
        )
    make_logger = LOGGERS[config.logger]
    try:
        trainer = L.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=None if config.precision in TRUE_PRECISIONS else config.precision,  # type: ignore[arg-type]
            callbacks=[
                Preemption(),
                ResultWriter(folder, jobs),
                OutcomeLogger(folder),
                StageBar(folder, jobs),
            ],
            logger=make_logger(folder.private, name="log") if make_logger else False,
            inference_mode=True,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"the trainer cannot be made so: {error}") from None
    _check_processes(trainer)
    return trainer


def _check_processes(trainer: L.Trainer) -> None:
    """Raises `InputError` when more processes were started than the trainer counts on.

    Each of them would do all jobs: one device is one process to Lightning, however it was started.
    """
    known = (TorchElasticEnvironment, SLURMEnvironment)  # torchrun may run inside of SLURM
    started = next((kind().world_size() for kind in known if kind.detect()), trainer.world_size)
    if started != trainer.world_size:
        raise InputError(
            f"{started} processes were started, but trainer.devices x trainer.num_nodes is "
            f"{trainer.world_size}; set them to the processes of a node and the number of nodes"
        )


def _dtype(config: PredictConfig) -> str:
    """The editor's dtype: Lightning's true precisions are another way to say it."""
    wanted = TRUE_PRECISIONS.get(config.trainer.precision or "")
    if wanted is None:
        return config.dtype
    if config.dtype not in ("auto", wanted):
        raise InputError(
            f"dtype={config.dtype} and trainer.precision={config.trainer.precision} differ; "
            "give one of them"
        )
    return wanted


def _first() -> bool:
    """Whether this is the first process of the run, before there is a trainer to say so."""
    return rank_zero_only.rank == 0 and os.environ.get("NODE_RANK", "0") == "0"


def _keep_quiet() -> None:
    """Lightning's advice and notes on its own code are not for those who edit clips."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in ("Couldn't infer the batch indices", ".*LeafSpec.*", ".*num_workers.*"):
        warnings.filterwarnings("ignore", message)


def _config(path: Path, overrides: list[str]) -> PredictConfig:
    if not path.is_file():
        raise InputError(f"config {path} does not exist")
    try:
        values = OmegaConf.load(path)
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} is not YAML: {error}") from None
    return merge(PredictConfig, values, parse_overrides(overrides))


def _keep_trace(out: Path) -> str:
    """Write the traceback at hand into a run's folder; says where it is, or that it is not."""
    path = out / f"run-error-{rank_zero_only.rank}.txt"
    try:
        path.write_text(traceback.format_exc())
    except OSError as error:
        return f"its traceback could not be written to {path}: {error.strerror}"
    return f"traceback in {path}"


def _end(message: str, code: int) -> int:
    where = "" if _first() else f" (rank {rank_zero_only.rank})"
    print(f"predict{where}: {message}", file=sys.stderr)  # noqa: T201
    return code
