"""Finds, checks and strictly loads checkpoint folders in diffusers' layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from freemask.editors import hub
from freemask.editors.hub import Wanted
from freemask.editors.known_messages import without_bars
from freemask.editors.scheduler import checked_config, default_config
from freemask.editors.state_dicts import read_all, weight_shapes
from freemask.editors.weight_files import BACKBONES, WeightFiles, choose_weights, find_weights
from freemask.types import InputError

SPATIAL = "UNet2DConditionModel"  # Stable Diffusion's UNet
CODEBOOK = "codebook.json"  # its name in a checkpoint folder
FILE_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
VOCABULARIES = ("tokenizer.json", "vocab.json")  # a tokenizer needs one of them


@dataclass(frozen=True)
class Layout:
    """The folders of a checkpoint.

    backbone: the denoising network's.
    models: folders with weights, the backbone's first.
    others: folders without weights.
    optional: folders among these that a checkpoint may lack.
    """

    backbone: str = "unet"
    models: tuple[str, ...] = ("unet", "vae", "text_encoder")
    others: tuple[str, ...] = ("tokenizer", "scheduler")
    optional: tuple[str, ...] = ("scheduler",)

    @property
    def parts(self) -> tuple[str, ...]:
        """All folders; they are downloaded from the hub where they exist."""
        return (*self.models, *self.others)

    @property
    def required(self) -> tuple[str, ...]:
        """The folders that no checkpoint lacks."""
        return tuple(part for part in self.parts if part not in self.optional)


UNET_LAYOUT = Layout()
PARTS = UNET_LAYOUT.parts


def resolve(
    checkpoint: str | Path,
    wanted: Wanted | None = None,
    *,
    parts: Sequence[str] = PARTS,
    configs_only: bool = False,
) -> Path:
    """Returns the folder or file of a checkpoint, and downloads it first if it is a hub id.

    checkpoint: a folder, a file such as `model.safetensors`, or a hub id such as "owner/name".
    wanted: which weights to download.
    parts: the parts to download; "" is a model at the root of the repository.
    configs_only: whether to download no more than the configs.

    Raises `InputError` for a path that does not exist and an id that cannot be downloaded.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir() or path.is_file():
        return path
    if path.suffix.lower() in FILE_SUFFIXES:
        raise InputError(f"checkpoint file {path} does not exist")
    if not hub.is_hub_id(str(checkpoint)):
        raise InputError(f"checkpoint {str(checkpoint)!r} is neither a folder nor a hub id")
    return hub.download(str(checkpoint), parts, wanted or Wanted(), configs_only=configs_only)


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
    if not part.is_dir():
        raise InputError(
            f"checkpoint {part.parent} has no {part.name} folder, which this editor needs"
        )
    try:
        config = json.loads((part / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{part / 'config.json'} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{part / 'config.json'} holds no settings")
    return config


def _from_pretrained(loader: Any, folder: Path, **options: Any) -> Any:
    try:
        with without_bars():
            return loader.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # errors of these libraries share no base class
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder} cannot be loaded: {reason}") from error


class Checkpoint:
    """A reader of the parts of a checkpoint folder, in one dtype, on the CPU.

    folder: a folder in diffusers' layout.
    dtype: dtype of the parts.
    variant: the variant of the weights that was asked for, such as "fp16".
    layout: its folders.
    """

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype,
        variant: str | None = None,
        layout: Layout = UNET_LAYOUT,
    ) -> None:
        self.folder, self.dtype, self.variant, self.layout = folder, dtype, variant, layout

    def at(self, folder: Path) -> Checkpoint:
        """Returns a reader of another folder."""
        return type(self)(folder, self.dtype, self.variant, self.layout)

    def with_dtype(self, dtype: torch.dtype) -> Checkpoint:
        """Returns a reader of the same folder in another dtype."""
        return type(self)(self.folder, dtype, self.variant, self.layout)

    def part(self, loader: Any, part: str) -> Any:
        """Returns a part without weights, such as a tokenizer.

        loader: its class in diffusers or transformers.

        Raises `InputError` for a part that is missing or cannot be read.
        """
        return _from_pretrained(loader, self.folder / part)

    def blueprint(self) -> Blueprint:
        """Returns a reader of the same configs that reads no weights."""
        return Blueprint(self.folder, self.dtype, self.variant, self.layout)

    def check_layout(self) -> None:
        """Raises `InputError` unless the folder has all parts that its layout requires."""
        folder, layout = self.folder, self.layout
        missing = [part for part in layout.required if not (folder / part).is_dir()]
        if missing:
            other = [name for name in BACKBONES if (folder / name).is_dir()]
            remedy = f"a checkpoint in diffusers' layout has {', '.join(layout.required)}"
            if layout.backbone in missing and other:
                remedy = f"its backbone is a {other[0]}: `freemask editors` lists which editor fits"
            raise InputError(f"checkpoint {folder} has no {', no '.join(missing)} folder; {remedy}")

    def check(self) -> None:
        """Raises `InputError` unless all weights are complete and readable."""
        for part in self.layout.models:
            if part in self.layout.optional and not (self.folder / part).is_dir():
                continue
            for file in self.weight_paths(part):
                if file.suffix == ".safetensors":
                    weight_shapes(file)

    def extra(self, name: str) -> Path | None:
        """Returns the folder of a part that not every checkpoint has, or None."""
        folder = self.folder / name
        return folder if folder.is_dir() else None

    def config(self, part: str = "unet") -> dict[str, Any]:
        """Returns the configuration of a part."""
        return read_config(self.folder / part)

    def model(self, loader: Any, part: str = "unet") -> Any:
        """Returns a part, frozen.

        loader: its class in diffusers or transformers.

        Raises `InputError` for a part that is missing or damaged, and for any weight that is
        missing, unknown or of another shape.
        """
        folder, chosen = self.folder / part, self._choice(part)
        loaded, info = _from_pretrained(
            loader,
            folder,
            output_loading_info=True,
            torch_dtype=self.dtype,
            use_safetensors=all(name.endswith(".safetensors") for name in chosen.files),
            **({"variant": chosen.variant} if chosen.variant else {}),
        )
        check_loaded(info, folder)
        return loaded.eval().requires_grad_(False)

    def weights(self, part: str = "unet") -> dict[str, Tensor]:
        """Returns the state dict of a part."""
        state = read_all(self.weight_paths(part))
        return {name: weight.to(self.dtype) for name, weight in state.items()}

    def weight_paths(self, part: str = "unet") -> list[Path]:
        """Returns the files of a part's weights. Raises `InputError` when there are none."""
        return [self.folder / part / name for name in self._choice(part).files]

    def _choice(self, part: str) -> WeightFiles:
        folder = self.folder / part
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return choose_weights(
            names, part, dtype=self.dtype, variant=self.variant, where=str(folder)
        )

    def tokenizer(self) -> Any:
        """Returns the tokenizer; its length is at most the text encoder's number of positions.

        Raises `InputError` when its vocabulary is missing or cannot be read.
        """
        return load_tokenizer(self.folder, self.folder / "tokenizer")

    def scheduler_config(self, *, beta_schedule: str) -> tuple[Any, tuple[str, ...]]:
        """Returns the scheduler's configuration, and remarks on it for the user.

        beta_schedule: schedule of the family's default, for a checkpoint without a scheduler.

        Raises `InputError` for a scheduler that cannot be read or whose values are unknown.
        """
        from diffusers import DDIMScheduler

        folder = self.folder / "scheduler"
        if not folder.is_dir():
            return default_config(self.config(), beta_schedule, where=str(self.folder))
        return checked_config(_from_pretrained(DDIMScheduler, folder).config, where=str(folder))

    @property
    def codebook(self) -> Path | None:
        """The codebook file in the folder, or None."""
        path = self.folder / CODEBOOK
        return path if path.exists() else None


def check_loaded(info: Any, source: Path) -> None:
    """Raises `InputError` for a weight that was missing, unknown or of another shape.

    info: the loading info of diffusers or transformers.
    source: where the weights come from.
    """
    wrong = {
        kind: sorted(str(key) for key in info.get(kind, ()))
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    }
    harmful = {k: v for k, v in wrong.items() if [x for x in v if "position_ids" not in x]}
    if harmful:
        kind, keys = next(iter(harmful.items()))
        raise InputError(
            f"{source} does not fit its config: {len(keys)} {kind.replace('_', ' ')}, "
            f"such as {keys[0]}"
        )


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
        state = read_all([self.folder / part / name for name in some_weights(self.folder / part)])
        return {name: weight.to("meta", self.dtype) for name, weight in state.items()}


def some_weights(part: Path) -> tuple[str, ...]:
    """Returns the names of the files of any complete weights of a part."""
    found = find_weights((path.name for path in part.iterdir()), part.name) if part.is_dir() else []
    if not found:
        raise InputError(f"{part} has no complete weights")
    return found[0].files


def load_tokenizer(folder: Path, vocabulary: Path) -> Any:
    """Returns the tokenizer; its length is at most the text encoder's number of positions.

    folder: the folder of the text encoder's config.
    vocabulary: the folder of the tokenizer.

    Raises `InputError` when its vocabulary is missing or cannot be read.
    """
    from transformers import CLIPTokenizer

    positions = read_config(folder / "text_encoder").get("max_position_embeddings", 77)
    if not any((vocabulary / name).exists() for name in VOCABULARIES):
        raise InputError(f"{vocabulary} has no {' and no '.join(VOCABULARIES)}")
    tokenizer = _from_pretrained(CLIPTokenizer, vocabulary)
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return tokenizer
