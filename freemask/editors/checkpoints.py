"""Finds, checks and strictly loads checkpoint folders in diffusers' layout.

Nothing here executes a pickle: weights are safetensors, or torch files read with `weights_only`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from freemask.types import InputError

SPATIAL = "UNet2DConditionModel"  # Stable Diffusion's UNet
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
FILES = (*(f"{part}/*" for part in PARTS), "model_index.json")
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
VOCABULARIES = ("tokenizer.json", "vocab.json")  # a tokenizer needs one of them


def resolve(checkpoint: str | Path, files: Sequence[str] = FILES) -> Path:
    """Returns the folder of a checkpoint, and downloads it first if it is a hub id.

    checkpoint: a folder, or a hub id such as "owner/name".
    files: patterns of the files to download.

    Raises `InputError` for a path that does not exist and an id that cannot be downloaded.
    """
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        return folder
    if not _is_hub_id(str(checkpoint)):
        raise InputError(f"checkpoint {str(checkpoint)!r} is neither a folder nor a hub id")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(checkpoint), allow_patterns=list(files)))
    except Exception as error:  # network and hub errors share no base class
        reason = str(error).splitlines()[0]
        raise InputError(
            f"checkpoint {str(checkpoint)!r} is not a folder and could not be fetched from the "
            f"hub ({reason}); download it and give the folder"
        ) from None


def _is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "/", "~"))


def check_layout(folder: Path) -> None:
    """Raises `InputError` unless the folder has all of `PARTS`."""
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise InputError(
            f"checkpoint {folder} has no {', no '.join(missing)} folder; a checkpoint in "
            f"diffusers' layout has {', '.join(PARTS)}"
        )


def check_text_width(folder: Path) -> None:
    """Raises `InputError` when the text encoder does not have the width that the UNet needs."""
    needed = read_config(folder / "unet").get("cross_attention_dim")
    width = read_config(folder / "text_encoder").get("hidden_size")
    if isinstance(needed, int) and isinstance(width, int) and needed != width:
        raise InputError(
            f"checkpoint {folder}: the text encoder is {width} wide, the UNet's cross-attention "
            f"needs {needed}; they are of different models"
        )


def check_class(folder: Path, unet_classes: Sequence[str]) -> dict[str, Any]:
    """Returns the UNet's config. Raises `InputError` unless it names one of the classes."""
    config = read_config(folder / "unet")
    found = config.get("_class_name")
    if found not in unet_classes or "block_out_channels" not in config:
        raise InputError(
            f"checkpoint {folder} holds a {found}, this editor needs a "
            f"{' or '.join(unet_classes)}; `freemask editors` lists which editor loads what"
        )
    return config


def read_config(part: Path) -> dict[str, Any]:
    """Returns the `config.json` of a part. Raises `InputError` when it is missing or not JSON."""
    try:
        config = json.loads((part / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{part / 'config.json'} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{part / 'config.json'} holds no settings")
    return config


def _from_pretrained(loader: Any, folder: Path, **options: Any) -> Any:
    try:
        return loader.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # errors of these libraries share no base class
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder} cannot be loaded: {reason}") from error


class Checkpoint:
    """A reader of the parts of a checkpoint folder, in one dtype, on the CPU.

    folder: a folder that `Editor.check` has accepted.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.folder, self.dtype = folder, dtype

    def at(self, folder: Path) -> Checkpoint:
        """Returns a reader of another folder."""
        return type(self)(folder, self.dtype)

    def config(self, part: str = "unet") -> dict[str, Any]:
        """Returns the configuration of a part."""
        return read_config(self.folder / part)

    def model(self, loader: Any, part: str = "unet") -> Any:
        """Returns a part, frozen.

        loader: its class in diffusers or transformers.

        Raises `InputError` for a part that is missing or damaged, and for any weight that is
        missing, unknown or of another shape.
        """
        folder = self.folder / part
        loaded, info = _from_pretrained(
            loader, folder, output_loading_info=True, torch_dtype=self.dtype
        )
        wrong = {
            kind: sorted(str(key) for key in info.get(kind, ()))
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
        }
        harmful = {k: v for k, v in wrong.items() if [x for x in v if "position_ids" not in x]}
        if harmful:
            kind, keys = next(iter(harmful.items()))
            raise InputError(
                f"{folder} does not fit its config: {len(keys)} {kind.replace('_', ' ')}, "
                f"such as {keys[0]}"
            )
        return loaded.eval().requires_grad_(False)

    def weights(self, part: str = "unet") -> dict[str, Tensor]:
        """Returns the state dict of a part."""
        state = read_weights(weights_file(self.folder / part))
        return {name: weight.to(self.dtype) for name, weight in state.items()}

    def vae(self) -> Any:
        """Returns the VAE, frozen."""
        from diffusers import AutoencoderKL

        return self.model(AutoencoderKL, "vae")

    def text_encoder(self) -> Any:
        """Returns the text encoder, frozen."""
        from transformers import CLIPTextModel

        return self.model(CLIPTextModel, "text_encoder")


class Blueprint(Checkpoint):
    """A reader that builds the parts from their configs on the meta device and reads no weights.

    Models have the right shapes and no values. `weights` reads a file for its names and shapes.
    """

    def model(self, loader: Any, part: str = "unet") -> Any:
        """See `Checkpoint.model`."""
        config = self.config(part)
        config_class = getattr(loader, "config_class", None)  # transformers' models have one
        with torch.device("meta"):
            made = loader(config_class(**config)) if config_class else loader.from_config(config)
        return nn.Module.to(made, self.dtype).eval().requires_grad_(False)

    def weights(self, part: str = "unet") -> dict[str, Tensor]:
        """See `Checkpoint.weights`."""
        state = read_weights(weights_file(self.folder / part))
        return {name: weight.to("meta", self.dtype) for name, weight in state.items()}


def load_scheduler_config(folder: Path) -> Any:
    """Returns the scheduler's configuration as diffusers reads it."""
    from diffusers import DDIMScheduler

    return _from_pretrained(DDIMScheduler, folder / "scheduler").config


def weights_file(part: Path) -> Path:
    """Returns the path of a model's weights. Raises `InputError` when there are none."""
    for name in WEIGHTS:
        if (part / name).is_file():
            return part / name
    raise InputError(f"{part} has no weights; looked for {', '.join(WEIGHTS)}")


def read_weights(file: Path) -> dict[str, Tensor]:
    """Returns the state dict in a safetensors or torch file.

    Raises `InputError` for a file that is damaged, or holds anything but tensors by name.
    """
    try:
        if file.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # errors of safetensors, pickle and zip share no base class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file} cannot be read as weights: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise InputError(f"{file} is not a state dict: it holds more than tensors by name")
    return state


def weight_names(file: Path) -> list[str]:
    """Returns the names in a file of weights. Reads no tensor if it is a safetensors file."""
    if file.suffix != ".safetensors":
        return list(read_weights(file))
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except Exception as error:
        raise InputError(f"{file} cannot be read as weights: {error}") from None


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Loads a state dict into a module.

    source: the file of the state dict, for errors.

    Raises `InputError` for a weight that is missing, unknown or of another shape.
    """
    own = module.state_dict()
    for kind, names in (("lacks", own.keys() - state.keys()), ("adds", state.keys() - own.keys())):
        if names:
            raise InputError(
                f"{source} does not fit its config: it {kind} {len(names)} weights, such as "
                f"{min(names)}"
            )
    for name, weight in own.items():
        if weight.shape != state[name].shape:
            raise InputError(
                f"{source} does not fit its config: {name} is {tuple(state[name].shape)}, "
                f"must be {tuple(weight.shape)}"
            )
    module.load_state_dict(state, assign=True)


def load_tokenizer(folder: Path) -> Any:
    """Returns the tokenizer; its length is at most the text encoder's number of positions.

    Raises `InputError` when its vocabulary is missing or cannot be read.
    """
    from transformers import CLIPTokenizer

    positions = read_config(folder / "text_encoder").get("max_position_embeddings", 77)
    if not any((folder / "tokenizer" / name).exists() for name in VOCABULARIES):
        raise InputError(f"{folder / 'tokenizer'} has no {' and no '.join(VOCABULARIES)}")
    tokenizer = _from_pretrained(CLIPTokenizer, folder / "tokenizer")
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return tokenizer
