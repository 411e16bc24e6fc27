"""Runs a batch: its configuration, its Lightning trainer, and how its process ends."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from freemask import editors
from freemask.batch import report
from freemask.batch.job_list import load_jobs
from freemask.batch.run_folder import Outcome, RunFolder
from freemask.config import load_yaml, merge, nearest, parse_overrides
from freemask.editors.request import EditorRequest
from freemask.io.paths import user_path
from freemask.modules.callbacks import OutcomeLogger, Preemption, ResultWriter, StageBar
from freemask.modules.editing import EditDataModule, FreeMaskModule
from freemask.modules.interrupts import keyboard_interrupts
from freemask.types import InputError

LOGGERS = {"none": None, "csv": CSVLogger, "tensorboard": TensorBoardLogger}
TRUE_PRECISIONS = {"32-true": "float32", "16-true": "float16", "bf16-true": "bfloat16"}
STOPPED = 143  # 128 + SIGTERM
INTERRUPTED = 130  # 128 + SIGINT
PATHS = ("jobs", "out", "cache")  # keys of the config


@dataclass
class TrainerConfig:
    """Arguments of `lightning.Trainer`.

    accelerator, devices, num_nodes, strategy: as in Lightning.
    precision: as in Lightning; None computes in the editor's `dtype`.
    logger: a name in LOGGERS.
    """

    accelerator: str = "auto"
    devices: Any = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str | None = None
    logger: str = "none"


@dataclass
class ParallelConfig:
    """How processes share one clip.

    ulysses: number of neighbouring processes that share the tokens of each clip (context
        parallelism); it divides trainer.devices x trainer.num_nodes. Other processes take other
        clips. Only editors of transformers have it.
    """

    ulysses: int = 1


@dataclass
class PredictConfig:
    """A batch run.

    editor, checkpoint, options, dtype, revision, variant, lora: as in `freemask.load_editor`.
    jobs: file of the job list.
    out: the run folder.
    cache: folder of the inversion cache; None keeps it in the run folder.
    cache_gib: size limit of the inversion cache in GiB.
    trainer: arguments of the trainer.
    parallel: how processes share one clip.
    """

    editor: str = "zeroscope"
    checkpoint: str = "demo"
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    revision: str | None = None
    variant: str | None = None
    lora: list[str] = field(default_factory=list)
    jobs: str | None = None
    out: str = "out/predict"
    cache: str | None = None
    cache_gib: float = 20.0
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)


def load_config(path: Path, overrides: list[str]) -> PredictConfig:
    """Reads a YAML config and applies `key=value` overrides.

    A relative job list that the config names is looked for beside the config, then in the working
    folder. `~` is expanded in all paths.

    Raises `InputError` for a file that is missing or not YAML, and for unknown keys or values.
    """
    given = parse_overrides(overrides)
    config = merge(PredictConfig, load_yaml(path), given)
    if config.jobs and "jobs" not in given and (path.parent / config.jobs).is_file():
        config.jobs = str(path.parent / config.jobs)
    for key in PATHS:
        value = getattr(config, key)
        setattr(config, key, value and str(user_path(value)))
    return config


def run(config: PredictConfig, *, retry_failed: bool, quiet: bool = False) -> list[Outcome]:
    """Runs all jobs.

    retry_failed: whether jobs that failed in an earlier run are tried again.
    quiet: whether no progress is shown.

    Returns the outcomes of all jobs on rank 0, and none on the other ranks.

    Raises `InputError` for a config, a job list or a folder that cannot be used, `Stopped` on
    SIGTERM, and KeyboardInterrupt on Ctrl-C.
    """
    if not config.jobs:
        raise InputError("no job list is given; add jobs=FILE (.jsonl, .csv, .yaml or .json)")
    jobs = load_jobs(config.jobs)
    _check_team(config)
    folder = RunFolder(Path(config.out))
    wanted = EditorRequest(
        editor=config.editor,
        checkpoint=config.checkpoint,
        dtype=_dtype(config),
        options=config.options,
        revision=config.revision,
        variant=config.variant,
        lora=tuple(config.lora),
    )
    trainer = _make_trainer(config.trainer, folder, len(jobs), quiet=quiet)
    if trainer.world_size % config.parallel.ulysses:
        raise InputError(
            f"parallel.ulysses is {config.parallel.ulysses}, which does not divide the "
            f"{trainer.world_size} processes of trainer.devices x trainer.num_nodes"
        )
    with folder.held() if is_first_process() else nullcontext():
        module = FreeMaskModule(
            wanted=wanted,
            run=folder,
            retry_failed=retry_failed,
            cache=Path(config.cache) if config.cache else None,
            cache_limit=round(config.cache_gib * 2**30),
            team=config.parallel.ulysses,
        )
        data = EditDataModule(jobs, config.parallel.ulysses)
        with keyboard_interrupts():
            trainer.predict(module, datamodule=data, return_predictions=False)
        if not trainer.is_global_zero:
            return []
        outcomes = folder.outcomes()
        (folder.out / "report.html").write_text(report.page(folder.out, outcomes))
        return outcomes


def _check_team(config: PredictConfig) -> None:
    """Raises `InputError` for an unknown editor, and for one whose clips no processes share."""
    kind, team = editors.editor_class(config.editor), config.parallel.ulysses
    if team < 1:
        raise InputError(f"parallel.ulysses is {team}; it must be 1 or more")
    if team > 1 and not kind.runs_lanes:
        raise InputError(
            f"parallel.ulysses={team} shares the tokens of a clip, and the backbone of editor "
            f"{config.editor} computes whole clips; leave it 1, and each process takes a clip"
        )


def _make_trainer(config: TrainerConfig, folder: RunFolder, jobs: int, *, quiet: bool) -> L.Trainer:
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
                StageBar(folder, jobs, quiet=quiet),
            ],
            logger=make_logger(folder.private, name="log") if make_logger else False,
            inference_mode=True,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"Lightning refuses these trainer settings: {error}") from None
    _check_processes(trainer)
    return trainer


def _check_processes(trainer: L.Trainer) -> None:
    """Raises `InputError` unless as many processes were started as the trainer expects.

    More would each run all jobs, because Lightning takes one device for one process; with fewer,
    the trainer would wait for the others forever.
    """
    started, launcher = _started_processes()
    if started in (None, trainer.world_size):
        return
    seen = "1 process was" if started == 1 else f"{started} processes were"
    advice = "set them to the processes of a node and the number of nodes"
    if launcher == "sbatch":
        advice = "put srun before the command, or set both to 1"
    raise InputError(
        f"{seen} started by {launcher}, but trainer.devices x trainer.num_nodes is "
        f"{trainer.world_size}; {advice}"
    )


def _started_processes() -> tuple[int | None, str]:
    """Returns how many processes a launcher started and its name; None without a launcher.

    SLURM tells every process the tasks of the whole reservation; only `srun` starts them, and says
    how many in SLURM_STEP_NUM_TASKS.
    """
    if TorchElasticEnvironment.detect():  # torchrun may run within SLURM
        return TorchElasticEnvironment().world_size(), "torchrun"
    if SLURMEnvironment.detect():
        step = os.environ.get("SLURM_STEP_NUM_TASKS")
        return (int(step), "srun") if step else (1, "sbatch")
    return None, ""


def _dtype(config: PredictConfig) -> str:
    """Returns the editor's dtype, which may also be given as one of Lightning's true precisions."""
    wanted = TRUE_PRECISIONS.get(config.trainer.precision or "")
    if wanted is None:
        return config.dtype
    if config.dtype not in ("auto", wanted):
        raise InputError(
            f"dtype={config.dtype} and trainer.precision={config.trainer.precision} differ; "
            "give one of them"
        )
    return wanted


def is_first_process() -> bool:
    """Returns whether this is the first process of the run, before a trainer exists."""
    return rank_zero_only.rank == 0 and os.environ.get("NODE_RANK", "0") == "0"


def write_traceback(out: Path) -> str:
    """Writes the traceback of the current error into a run folder.

    Returns a sentence that says where the traceback is, or why it could not be written.
    """
    path = out / f"run-error-{rank_zero_only.rank}.txt"
    try:
        path.write_text(traceback.format_exc())
    except OSError as error:
        return f"its traceback could not be written to {path}: {error.strerror}"
    return f"traceback in {path}"


def echo_end(message: str) -> None:
    """Prints why the process ends on standard error, with its rank unless it is the first."""
    where = "" if is_first_process() else f" (rank {rank_zero_only.rank})"
    print(f"predict{where}: {message}", file=sys.stderr)  # noqa: T201
