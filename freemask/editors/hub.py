"""Downloads from the hub what an edit reads of a checkpoint: one precision, and nothing else.

    listing with sizes -> needed files -> those that the cache lacks -> one line, download

Without a network, or with HF_HUB_OFFLINE, the cached copy serves.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from freemask.editors.weight_files import choose_weights, find_weights
from freemask.types import InputError

ROOT_FILES = ("model_index.json", "codebook.json", "config.json")
TEXT_FILES = (".json", ".txt")  # of tokenizers and schedulers, and configs
PIECES = "spiece.model"  # a vocabulary, needed where there is no tokenizer.json
CONFIGS = ("config.json", "model_index.json")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The weights that are wanted of a checkpoint.

    dtype: what the backbone computes in.
    variant: the variant of the weights, such as "fp16"; None takes the one that suits the dtype.
    revision: branch, tag or commit on the hub; None takes the main branch.
    """

    dtype: torch.dtype = torch.float32
    variant: str | None = None
    revision: str | None = None


def is_hub_id(name: str) -> bool:
    """Returns whether a name has the form OWNER/NAME."""
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "/", "~"))


def needed_files(names: Iterable[str], parts: Sequence[str], wanted: Wanted) -> list[str]:
    """Returns the files of a repository that an edit reads.

    names: all files of the repository.
    parts: folders of the parts; "" is a model at the root, such as a motion adapter.

    Raises `InputError` as `choose_weights` does.
    """
    folders: dict[str, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        folders.setdefault("" if str(path.parent) == "." else str(path.parent), []).append(
            path.name
        )
    chosen = [name for name in ROOT_FILES if name in folders.get("", ())]
    for part in parts:
        here = folders.get(part, [])
        files = [name for name in here if name.endswith(TEXT_FILES) and ".index" not in name]
        files += [name for name in here if name == PIECES and "tokenizer.json" not in here]
        if find_weights(here, part):
            weights = choose_weights(
                here, part, dtype=wanted.dtype, variant=wanted.variant, where=part or "the root"
            )
            files += [*weights.files, *([weights.index] if weights.index else [])]
        chosen += [f"{part}/{name}" if part else name for name in files if part or name in here]
    return list(dict.fromkeys(chosen))


def download(
    checkpoint: str, parts: Sequence[str], wanted: Wanted, *, configs_only: bool = False
) -> Path:
    """Returns the folder of a hub id in the cache, and downloads first what is not there.

    parts: see `needed_files`.
    configs_only: whether to take only the `config.json` of each part and `model_index.json`.

    Logs one line before a download of weights. Raises `InputError` for an id or a revision that
    the hub does not have, a gated or private repository, and a download that fails.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(checkpoint, revision=wanted.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        files = needed_files(sizes, parts, wanted)
        if not configs_only and not any(name.startswith(parts[0]) for name in sizes):
            raise InputError(
                f"it has no {parts[0]} folder, which this editor needs; `freemask editors` lists "
                "which editor loads what"
            )
        if configs_only:
            files = [name for name in files if PurePosixPath(name).name in CONFIGS]
        lacking = _lacking(checkpoint, files, info.sha)
        if lacking and not configs_only:
            log.warning(_announcement(checkpoint, wanted, sum(sizes[name] for name in lacking)))
        return _fetch(checkpoint, files, wanted.revision)
    except InputError as error:
        raise InputError(f"checkpoint {_full_name(checkpoint, wanted)}: {error}") from None
    except Exception as error:  # network, disk and hub errors share no base class
        folder = _cached(checkpoint, parts, wanted)
        if folder is None:
            raise InputError(_sentence(error, checkpoint, wanted)) from None
        return folder


def _fetch(checkpoint: str, files: Sequence[str], revision: str | None) -> Path:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    hidden = not sys.stderr.isatty()  # bars are for terminals
    if hidden:
        disable_progress_bars()
    try:
        return Path(
            HfApi().snapshot_download(checkpoint, revision=revision, allow_patterns=list(files))
        )
    finally:
        if hidden:
            enable_progress_bars()


def _lacking(checkpoint: str, files: Iterable[str], commit: str | None) -> list[str]:
    """Returns the files that the cache does not hold."""
    from huggingface_hub import try_to_load_from_cache

    return [
        name
        for name in files
        if not isinstance(try_to_load_from_cache(checkpoint, name, revision=commit), str)
    ]


def _cached(checkpoint: str, parts: Sequence[str], wanted: Wanted) -> Path | None:
    """Returns the folder of an earlier download, which may lack parts; None if there is none."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    probe = f"{parts[0]}/config.json" if parts[0] else "config.json"
    try:
        found = try_to_load_from_cache(checkpoint, probe, revision=wanted.revision)
    except HFValidationError:
        return None
    return Path(found).parents[probe.count("/")] if isinstance(found, str) else None


def _announcement(checkpoint: str, wanted: Wanted, size: int) -> str:
    from huggingface_hub import constants

    amount = f"{size / 2**30:.1f} GiB" if size >= 2**30 / 20 else f"{size / 2**20:.1f} MiB"
    return (
        f"downloading {amount} of {_full_name(checkpoint, wanted)} from {constants.ENDPOINT} "
        f"to {constants.HF_HUB_CACHE}"
    )


def _sentence(error: Exception, checkpoint: str, wanted: Wanted) -> str:
    """Returns why a download failed and what to do."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{checkpoint}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"checkpoint {checkpoint} is gated: accept its terms at {page}, then log in with "
            "`hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"checkpoint {checkpoint} has no revision {wanted.revision!r}; {page} lists them"
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return (
            f"checkpoint {checkpoint!r} is not a folder here, and the hub has no public model of "
            "that name; check the spelling, or log in with `hf auth login` if it is private"
        )
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _first_line(error)
    return (
        f"checkpoint {_full_name(checkpoint, wanted)} is neither a folder nor in the cache "
        f"{constants.HF_HUB_CACHE}, and could not be fetched from the hub ({reason}); download it "
        "and give the folder"
    )


def _full_name(checkpoint: str, wanted: Wanted) -> str:
    traits = [f"revision {wanted.revision}"] if wanted.revision else []
    traits += [f"variant {wanted.variant}"] if wanted.variant else []
    return f"{checkpoint} ({', '.join(traits)})" if traits else checkpoint


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
