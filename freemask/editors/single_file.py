"""Reads Stable Diffusion 1.x and 2.x from one file in the original layout.

    model.safetensors, model.ckpt -> diffusers' single-file loader -> the parts

The file holds weights alone. Configs and tokenizer are part of the package, so nothing is
downloaded; a folder `scheduler` or `tokenizer` beside the file takes precedence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from freemask.editors.checkpoints import (
    Blueprint,
    Checkpoint,
    check_loaded,
    load_tokenizer,
    read_config,
)
from freemask.editors.clip_tokenizer import clip_tokenizer
from freemask.editors.scheduler import Remarks, default_config
from freemask.editors.state_dicts import read_tensors, weight_shapes
from freemask.types import InputError

BACKBONES = Path(__file__).parents[1] / "assets" / "backbones"
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
FIRST = "model.diffusion_model.input_blocks.0.0.weight"
BASE_NAMES = ("512", "base")  # in the names of Stable Diffusion 2.x files for 512x512
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Family:
    """Checkpoints of one architecture.

    title: its name in messages.
    folder: the configs of its parts.
    pad_token: token that pads its prompts.
    """

    title: str
    folder: Path
    pad_token: str


FAMILIES = {  # by the width of the text states
    768: Family("Stable Diffusion 1.x", BACKBONES / "sd-1.5", "<|endoftext|>"),
    1024: Family("Stable Diffusion 2.x", BACKBONES / "sd-2.1", "!"),
}


def open_checkpoint(path: Path, dtype: torch.dtype, variant: str | None = None) -> Checkpoint:
    """Returns a reader of a checkpoint folder or of a single file.

    Raises `InputError` for a file that is not Stable Diffusion 1.x or 2.x.
    """
    return SingleFile(path, dtype) if path.is_file() else Checkpoint(path, dtype, variant)


def family_of(shapes: Shapes, file: Path) -> Family:
    """Returns the family of a file by the shapes of its weights.

    Raises `InputError` for a file of another architecture.
    """
    if FIRST not in shapes:
        kind = "is a LoRA; give it with --lora" if any("lora" in name for name in shapes) else ""
        raise InputError(
            f"{file} {kind or 'holds no Stable Diffusion in the original layout'}; a checkpoint "
            "file of Stable Diffusion 1.x or 2.x has weights such as " + FIRST
        )
    channels = shapes[FIRST][1]
    if channels != 4:
        raise InputError(
            f"{file} takes {channels} channels of latents, as models for inpainting or depth do; "
            "an edit needs a model that takes 4"
        )
    width = next((s[1] for name, s in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
    if width not in FAMILIES:
        known = ", ".join(f"{w} ({family.title})" for w, family in FAMILIES.items())
        raise InputError(f"{file} has text states of width {width}; single files may have {known}")
    return FAMILIES[width]


class SingleFile(Checkpoint):
    """A reader of the parts in one file.

    file: the file. Its `folder` holds the configs of its family.

    Raises `InputError` for a file that cannot be read, or of another architecture.
    """

    def __init__(self, file: Path, dtype: torch.dtype) -> None:
        self.file = file
        self.family = family_of(self.shapes, file)
        super().__init__(self.family.folder, dtype)

    @cached_property
    def shapes(self) -> Shapes:
        """Shapes of the weights by name."""
        if self.file.suffix == ".safetensors":
            return weight_shapes(self.file)
        return {name: tuple(weight.shape) for name, weight in self._state.items()}

    @cached_property
    def _state(self) -> dict[str, Tensor]:
        try:
            content = read_tensors(self.file)
        except InputError as error:
            if self.file.suffix == ".safetensors":
                raise
            raise InputError(
                f"{error}; a pickle that holds more than tensors is refused, take the .safetensors "
                "file of the same model"
            ) from None
        content = content.get("state_dict", content) if isinstance(content, dict) else {}
        return {name: x for name, x in content.items() if isinstance(x, Tensor)}

    def at(self, folder: Path) -> Checkpoint:
        """See `Checkpoint.at`."""
        return Checkpoint(folder, self.dtype)

    def extra(self, name: str) -> Path | None:
        """None: a single file holds the parts of `PREFIXES` alone."""
        return None

    def check_layout(self) -> None:
        """Raises `InputError` unless the file holds all parts."""
        for part, prefix in PREFIXES.items():
            if not any(name.startswith(prefix) for name in self.shapes):
                raise InputError(
                    f"{self.file} holds no {part.replace('_', ' ')} (weights named {prefix}*); "
                    "take a file of the whole model, or a folder in diffusers' layout"
                )

    def check(self) -> None:
        """See `Checkpoint.check`; `check_layout` has read the names of all weights."""

    def config(self, part: str = "unet") -> dict[str, Any]:
        """See `Checkpoint.config`."""
        config = read_config(self.folder / part)
        return config | {"sample_size": 64} if part == "unet" and self._for_512 else config

    @property
    def _for_512(self) -> bool:
        return any(text in self.file.stem.lower() for text in BASE_NAMES)

    def model(self, loader: Any, part: str = "unet") -> Any:
        """See `Checkpoint.model`."""
        from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

        state = {k: x for k, x in self._state.items() if k.startswith(PREFIXES[part])}
        options = {"config": str(self.folder), "subfolder": part, "torch_dtype": self.dtype}
        self._check_count(state, loader, part)
        try:
            if part == "text_encoder":
                loaded = create_diffusers_clip_model_from_ldm(
                    loader, state, local_files_only=True, **options
                )
            else:
                loaded = loader.from_single_file(state, local_files_only=True, **options)
        except Exception as error:  # errors of these libraries share no base class
            reason = str(error).splitlines()[0]
            raise InputError(f"the {part} in {self.file} cannot be loaded: {reason}") from error
        missing = [name for name, x in loaded.state_dict().items() if x.is_meta]
        check_loaded({"missing_keys": missing}, self.file)
        return loaded.to(self.dtype).eval().requires_grad_(False)

    def _check_count(self, state: Mapping[str, Tensor], loader: Any, part: str) -> None:
        """Raises `InputError` unless a part has as many weights as its family's.

        The text encoder is left out, because the original layouts pack its weights differently.
        """
        if part == "text_encoder":
            return
        family = Blueprint(self.folder, self.dtype).model(loader, part).state_dict()
        if len(state) != len(family):
            raise InputError(
                f"the {part} in {self.file} has {len(state)} weights, {self.family.title} has "
                f"{len(family)}; the file is incomplete or of another architecture"
            )

    def weight_paths(self, part: str = "unet") -> list[Path]:
        """See `Checkpoint.weight_paths`."""
        return [self.file]

    def tokenizer(self) -> Any:
        """See `Checkpoint.tokenizer`."""
        beside = self.file.parent / "tokenizer"
        if beside.is_dir():
            return load_tokenizer(self.folder, beside)
        return clip_tokenizer(pad_token=self.family.pad_token)

    def scheduler_config(self, *, beta_schedule: str) -> tuple[Any, Remarks]:
        """See `Checkpoint.scheduler_config`."""
        beside = self.file.parent / "scheduler"
        if beside.is_dir():
            return Checkpoint(self.file.parent, self.dtype).scheduler_config(
                beta_schedule=beta_schedule
            )
        config, _ = default_config(self.config(), beta_schedule, where=str(self.file))
        size = self.config()["sample_size"] * 8
        remark = (
            f"{self.file.name} is read as {self.family.title} for {size}x{size} with "
            f"{config['prediction_type']} prediction; a folder `scheduler` beside it says otherwise"
        )
        return config, (remark,)

    @property
    def codebook(self) -> Path | None:
        """None: a single file has no folder of its own."""
        return None
