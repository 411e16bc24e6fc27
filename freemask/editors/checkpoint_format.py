"""Defines `CheckpointFormat`: how an editor finds, checks and loads its checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from freemask.editors import checkpoints
from freemask.editors.checkpoints import Checkpoint, Layout
from freemask.editors.hub import Wanted
from freemask.editors.latent_time import IMAGE_VAE, LatentTime
from freemask.editors.lora import LoraFile, fuse_lora, read_lora
from freemask.editors.native_size import NativeFrame


@dataclass
class NoOptions:
    """No options."""


class CheckpointFormat(ABC):
    """The class-level half of an editor: its checkpoints, before and while they are loaded.

    name: its name in the registry.
    layout: the parts of its checkpoints.
    architectures: class names of the backbones that it loads.
    family: backbones of one family share presets (`configs/family`) and methods.
    demo: the folder of its demo checkpoint in `freemask/assets`, or None.
    half: the half precision in which it runs on a GPU unless another dtype is asked for.
    sources: how a source can reach a noise level (`settings.source`), the default first.
    states: what an edit can denoise (`settings.flow.state`), the default first.
    Options: a dataclass of the options that `load` takes; it checks itself.
    """

    name: ClassVar[str]
    layout: ClassVar[Layout]
    architectures: ClassVar[tuple[str, ...]]
    family: ClassVar[str] = "diffusion"
    demo: ClassVar[str | None] = None
    half: ClassVar[torch.dtype] = torch.float16
    sources: ClassVar[tuple[str, ...]] = ("inverted",)
    states: ClassVar[tuple[str, ...]] = ("pinned",)
    Options: ClassVar[type] = NoOptions

    @abstractmethod
    def __init__(self, **parts: Any) -> None:
        """Takes the parts of a checkpoint; see `Editor`."""

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        options: Any = None,
        revision: str | None = None,
        variant: str | None = None,
        lora: Sequence[str] = (),
    ) -> Self:
        """Loads a checkpoint folder, a single file or a hub id.

        options: an instance of `Options`; None takes the defaults.
        revision, variant, lora: as in `load_editor`.

        Raises `InputError` for a checkpoint of another architecture, or a damaged one.
        """
        loras = [LoraFile.parse(text) for text in lora]
        files = cls.open(checkpoint, Wanted(dtype=dtype, variant=variant, revision=revision))
        scheduler_config, notes = cls.read_scheduler(files)
        asked = {"revision": revision, "variant": variant, "lora": list(lora)}
        return cls._assemble(
            files,
            device,
            options,
            loras,
            checkpoint=str(checkpoint),
            tokenizer=cls.load_tokenizer(files),
            scheduler_config=scheduler_config,
            codebook=files.codebook,
            traits={name: value for name, value in asked.items() if value},
            notes=notes,
        )

    @classmethod
    def open(cls, checkpoint: str | Path, wanted: Wanted) -> Checkpoint:
        """Finds or downloads a checkpoint, and checks all that can be checked without its weights.

        Raises `InputError` as `load` does.
        """
        path = checkpoints.resolve(checkpoint, wanted, parts=cls.layout.parts)
        files = cls.reader(path, wanted.dtype, wanted.variant)
        files.check_layout()
        cls.check_configs(files)
        files.check()
        return files

    @classmethod
    def blueprint(cls, folder: Path, dtype: torch.dtype, options: Any = None) -> Self:
        """Builds the editor of a folder's configs on the meta device.

        A blueprint has sites, shapes and sizes, but no weights, no tokenizer and no scheduler.
        folder: the folder, or a single file.

        Raises `InputError` as `load` does.
        """
        files = cls.reader(folder, dtype)
        cls.check_configs(files)
        with torch.device("meta"):
            return cls._assemble(
                files.blueprint(), torch.device("meta"), options, checkpoint=str(folder)
            )

    @classmethod
    def _assemble(
        cls,
        files: Checkpoint,
        device: torch.device,
        options: Any,
        loras: Sequence[LoraFile] = (),
        **parts: Any,
    ) -> Self:
        options = options or cls.Options()
        backbone, text_encoder = cls.load_backbone(files, options), cls.load_text_encoder(files)
        targets = cls.lora_targets(backbone, text_encoder)
        for lora in (read_lora(file, tuple(targets)) for file in loras):
            for part, model in targets.items():
                fuse_lora(lora, model, part)
        made = cls(
            backbone=backbone.eval().requires_grad_(False),
            vae=cls.load_vae(files),
            text_encoder=text_encoder.eval().requires_grad_(False),
            options=options,
            **parts,
        )
        made.place(device)
        return made

    @classmethod
    def lora_targets(cls, backbone: Any, text_encoder: Any) -> dict[str, nn.Module]:
        """Returns the models that a LoRA file can change, by the name of their part in the file."""
        return {"unet": backbone, "text_encoder": text_encoder}

    @abstractmethod
    def place(self, device: torch.device) -> None:
        """Moves the parts to where they compute."""

    @classmethod
    @abstractmethod
    def reader(cls, path: Path, dtype: torch.dtype, variant: str | None = None) -> Checkpoint:
        """Returns the reader of a checkpoint folder or file. Raises `InputError` for neither."""

    @classmethod
    @abstractmethod
    def check_configs(cls, files: Checkpoint) -> None:
        """Raises `InputError` unless the configs are of a checkpoint that this editor can edit."""

    @classmethod
    @abstractmethod
    def native_frame(cls, files: Checkpoint, name: str) -> NativeFrame:
        """Returns the frames that a checkpoint was trained on, from its configs.

        name: the checkpoint's folder or hub id.

        Raises `InputError` for configs that state no size.
        """

    @classmethod
    @abstractmethod
    def frame_multiple(cls, files: Checkpoint) -> int:
        """Returns the number of pixels of which both sides of a frame must be multiples."""

    @classmethod
    def time_of(cls, files: Checkpoint) -> LatentTime:
        """Returns how latent frames cover the frames of a clip, from a checkpoint's configs."""
        return IMAGE_VAE

    @classmethod
    @abstractmethod
    def read_scheduler(cls, files: Checkpoint) -> tuple[Any, tuple[str, ...]]:
        """Returns the scheduler's configuration, and remarks on it for the user.

        Raises `InputError` for a scheduler that cannot be read or whose values are unknown.
        """

    @classmethod
    @abstractmethod
    def make_scheduler(cls, config: Any, steps: int) -> Any:
        """Returns a scheduler set to `steps` steps; `sampling.samplers` knows its class.

        config: as `read_scheduler` returns it.

        Raises `InputError` for steps that it cannot make.
        """

    @classmethod
    @abstractmethod
    def load_backbone(cls, checkpoint: Checkpoint, options: Any) -> nn.Module:
        """Returns the backbone of a checkpoint that `check_configs` has accepted.

        checkpoint: reads parts of the folder, or builds them on the meta device for a blueprint.
        options: an instance of `Options`.
        """

    @classmethod
    @abstractmethod
    def load_vae(cls, checkpoint: Checkpoint) -> Any:
        """Returns the VAE, frozen."""

    @classmethod
    @abstractmethod
    def load_text_encoder(cls, checkpoint: Checkpoint) -> Any:
        """Returns the text encoder, frozen."""

    @classmethod
    @abstractmethod
    def load_tokenizer(cls, checkpoint: Checkpoint) -> Any:
        """Returns the tokenizer; its `model_max_length` is the number of tokens of text states.

        Raises `InputError` for a tokenizer that is missing or cannot be read.
        """
