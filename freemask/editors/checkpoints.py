"""Checkpoint folders in diffusers' layout: found, checked before loading, and loaded strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from freemask.types import InputError

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
VOCABULARIES = ("tokenizer.json", "vocab.json")  # a tokenizer without either knows no word


def resolve(checkpoint: str | Path) -> Path:
    """The folder of a checkpoint: a path, or the id of a hub snapshot, which is then fetched.

    Raises `InputError` for a path that does not exist and an id that cannot be fetched.
    """
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        return folder
    if not _is_hub_id(str(checkpoint)):
        raise InputError(f"checkpoint {str(checkpoint)!r} is neither a folder nor a hub id")
    from huggingface_hub import snapshot_download

    try:
        patterns = [f"{part}/*" for part in PARTS] + ["model_index.json"]
        return Path(snapshot_download(str(checkpoint), allow_patterns=patterns))
    except Exception as error:  # network and hub errors share no base class
        reason = str(error).splitlines()[0]
        raise InputError(
            f"checkpoint {str(checkpoint)!r} is not a folder and could not be fetched from the "
            f"hub ({reason}); download it and give the folder"
        ) from None


def _is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "/", "~"))


def check_layout(folder: Path, unet_class: str) -> None:
    """Raises `InputError` unless the folder has every part and a UNet of the class asked for."""
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise InputError(
            f"checkpoint {folder} has no {', no '.join(missing)} folder; a checkpoint in "
            f"diffusers' layout has {', '.join(PARTS)}"
        )
    config = read_config(folder / "unet")
    found = config.get("_class_name")
    if found != unet_class or "block_out_channels" not in config:
        raise InputError(
            f"checkpoint {folder} holds a {found}, this editor needs a {unet_class}; "
            "`freemask editors` lists which editor loads what"
        )


def read_config(part: Path) -> dict[str, Any]:
    """The `config.json` of a part. Raises `InputError` when it is missing or not JSON."""
    try:
        config = json.loads((part / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{part / 'config.json'} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{part / 'config.json'} holds no settings")
    return config


def _from_pretrained(loader: Any, folder: Path, **options: Any) -> Any:
    """What a class of diffusers or transformers reads from a folder, never from the network."""
    try:
        return loader.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # theirs, of safetensors and of pickle share no base class
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder} cannot be loaded: {reason}") from error


def load_part(loader: Any, folder: Path, part: str, **options: Any) -> Any:
    """Load one part with its class's `from_pretrained`; any missing or foreign weight is an error.

    Never executes a pickle: safetensors, or `weights_only` torch files.
    """
    loaded, info = _from_pretrained(loader, folder / part, output_loading_info=True, **options)
    wrong = {
        kind: sorted(str(key) for key in info.get(kind, ()))
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    }
    harmful = {k: v for k, v in wrong.items() if [x for x in v if "position_ids" not in x]}
    if harmful:
        kind, keys = next(iter(harmful.items()))
        raise InputError(
            f"{folder / part} does not fit its config: {len(keys)} {kind.replace('_', ' ')}, "
            f"such as {keys[0]}"
        )
    return loaded.eval().requires_grad_(False)


def load_scheduler_config(folder: Path) -> Any:
    """The scheduler's configuration as diffusers reads it."""
    from diffusers import DDIMScheduler

    return _from_pretrained(DDIMScheduler, folder / "scheduler").config


def load_frozen(
    folder: Path, unet: Any, *, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """All parts of a checkpoint by name, on one device; the UNet is loaded by class `unet`."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    parts = {"unet": unet, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    loaded: dict[str, Any] = {
        part: load_part(loader, folder, part, torch_dtype=dtype).to(device)
        for part, loader in parts.items()
    }
    loaded["tokenizer"] = load_tokenizer(folder)
    return loaded


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer; as long as the text encoder has positions, if it states no length itself."""
    from transformers import CLIPTokenizer

    positions = read_config(folder / "text_encoder").get("max_position_embeddings", 77)
    if not any((folder / "tokenizer" / name).exists() for name in VOCABULARIES):
        raise InputError(f"{folder / 'tokenizer'} has no {' and no '.join(VOCABULARIES)}")
    tokenizer = _from_pretrained(CLIPTokenizer, folder / "tokenizer")
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return tokenizer
