"""Defines `Editor`: a pretrained video backbone and the interface through which freemask uses it.

Latents are float32 `(B, C, F, h, w)` everywhere outside an editor; text states are `(B, N, E)`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.profiler import record_function

from freemask.attention.hooks import Attend, hooked
from freemask.attention.sites import find_sites
from freemask.editors import checkpoints
from freemask.editors.hub import Wanted
from freemask.editors.latents import check_size, decode_frames, encode_frames
from freemask.editors.lora import LoraFile, fuse_lora, read_lora
from freemask.editors.scheduler import make_scheduler
from freemask.editors.single_file import open_checkpoint
from freemask.io.fingerprint import fingerprint
from freemask.types import InputError, Site, Video

Denoise = Callable[[Tensor, int, int], Tensor]  # latents, first step, step to stop before
ENCODE_BATCH = 8  # frames that the VAE encodes or decodes at once, unless memory is short


@dataclass
class NoOptions:
    """No options."""


class Editor(ABC):
    """A backbone with its VAE, text encoder, tokenizer and scheduler.

    `load` makes an editor from a checkpoint folder, `blueprint` one without weights. A subclass
    sets the class variables and writes `load_unet` and `predict`.

    name: its name in the registry.
    architectures: class names of the UNets that it loads.
    demo: the folder of its demo checkpoint in `freemask/assets`, or None.
    parts: folders of a checkpoint that are downloaded from the hub, where they exist.
    beta_schedule: the noise schedule of its family, for checkpoints without a scheduler.
    Options: a dataclass of the options that `load` takes; it checks itself.
    frames_per_pass: frames that the VAE encodes or decodes at once.
    attention_part_bytes: `part_bytes` of fused attention; None for the kernels' default.
    """

    name: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]
    demo: ClassVar[str | None] = None
    parts: ClassVar[tuple[str, ...]] = checkpoints.PARTS
    beta_schedule: ClassVar[str] = "scaled_linear"
    Options: ClassVar[type] = NoOptions
    frames_per_pass: int = ENCODE_BATCH
    attention_part_bytes: int | None = None

    def __init__(
        self,
        *,
        unet: nn.Module,
        vae: Any,
        text_encoder: Any,
        options: Any,
        checkpoint: str,
        tokenizer: Any = None,
        scheduler_config: Any = None,
        codebook: Path | None = None,
        traits: Mapping[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Takes the parts of a checkpoint.

        unet: the backbone, frozen, as `load_unet` returns it.
        vae, text_encoder: frozen diffusers and transformers models.
        options: an instance of `Options`.
        checkpoint: the folder or hub id that the parts come from.
        tokenizer, scheduler_config: None in a blueprint.
        codebook: the codebook file of the checkpoint, or None.
        traits: what else was asked for (revision, variant, LoRA files), for `result.json`.
        notes: remarks on the checkpoint for the user, a line each.
        """
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.options, self.checkpoint, self.codebook = options, checkpoint, codebook
        self._tokenizer, self._scheduler_config = tokenizer, scheduler_config
        self.traits, self.notes = dict(traits or {}), tuple(notes)

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
    ) -> Editor:
        """Loads a checkpoint folder, a single file or a hub id.

        options: an instance of `Options`; None takes the defaults.
        revision, variant, lora: as in `load_editor`.

        Raises `InputError` for a checkpoint of another architecture, or a damaged one.
        """
        loras = [LoraFile.parse(text) for text in lora]
        files = cls.open(checkpoint, Wanted(dtype=dtype, variant=variant, revision=revision))
        scheduler_config, notes = files.scheduler_config(beta_schedule=cls.beta_schedule)
        asked = {"revision": revision, "variant": variant, "lora": list(lora)}
        return cls._assemble(
            files,
            device,
            options,
            loras,
            checkpoint=str(checkpoint),
            tokenizer=files.tokenizer(),
            scheduler_config=scheduler_config,
            codebook=files.codebook,
            traits={name: value for name, value in asked.items() if value},
            notes=notes,
        )

    @classmethod
    def open(cls, checkpoint: str | Path, wanted: Wanted) -> checkpoints.Checkpoint:
        """Finds or downloads a checkpoint, and checks all that can be checked without its weights.

        Raises `InputError` as `load` does.
        """
        path = checkpoints.resolve(checkpoint, wanted, parts=cls.parts)
        files = open_checkpoint(path, wanted.dtype, wanted.variant)
        files.check_layout()
        cls.check_unet(files.folder)
        checkpoints.check_text_width(files.folder)
        files.check()
        return files

    @classmethod
    def blueprint(cls, folder: Path, dtype: torch.dtype, options: Any = None) -> Editor:
        """Builds the editor of a folder's configs on the meta device.

        A blueprint has sites, shapes and sizes, but no weights, no tokenizer and no scheduler.
        folder: the folder, or a single file.

        Raises `InputError` as `load` does.
        """
        path, folder = folder, open_checkpoint(folder, dtype).folder
        cls.check_unet(folder)
        with torch.device("meta"):
            return cls._assemble(
                checkpoints.Blueprint(folder, dtype),
                torch.device("meta"),
                options,
                checkpoint=str(path),
            )

    @classmethod
    def _assemble(
        cls,
        files: checkpoints.Checkpoint,
        device: torch.device,
        options: Any,
        loras: Sequence[LoraFile] = (),
        **parts: Any,
    ) -> Editor:
        options = options or cls.Options()
        unet, text_encoder = cls.load_unet(files, options), files.text_encoder()
        for lora in map(read_lora, loras):
            fuse_lora(lora, unet, "unet")
            fuse_lora(lora, text_encoder, "text_encoder")
        return cls(
            unet=unet.to(device).eval().requires_grad_(False),
            vae=files.vae().to(device),
            text_encoder=text_encoder.to(device).eval().requires_grad_(False),
            options=options,
            **parts,
        )

    @classmethod
    def check_unet(cls, folder: Path) -> None:
        """Raises `InputError` unless the folder's UNet has one of the `architectures`."""
        checkpoints.check_class(folder, cls.architectures)

    @classmethod
    @abstractmethod
    def load_unet(cls, checkpoint: checkpoints.Checkpoint, options: Any) -> nn.Module:
        """Returns the backbone of a checkpoint folder that `check` has accepted.

        checkpoint: reads parts of the folder, or builds them on the meta device for a blueprint.
        options: an instance of `Options`.
        """

    @abstractmethod
    def predict(self, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        """Returns the backbone's output `(B, C, F, h, w)`.

        latents: `(B, C, F, h, w)`.
        timestep: training timestep, from 0.
        text: text states, `(B, N, E)`.
        """

    def begin(
        self, noise: Tensor, denoise: Denoise, scheduler: Any, generator: torch.Generator
    ) -> tuple[int, Tensor]:
        """Returns the step at which generation starts, and the latents at that step.

        noise: `(1, C, F, h, w)`, standard normal.
        denoise: runs guided steps from one step up to another, for any number of frames.
        scheduler: the sampler, set to the steps of the run.
        generator: the source of any further noise.
        """
        return 0, noise

    @property
    def tokenizer(self) -> Any:
        """The tokenizer. Raises `InputError` for a blueprint."""
        return self._required(self._tokenizer, "tokenizer")

    @property
    def scheduler_config(self) -> Any:
        """The checkpoint's scheduler configuration. Raises `InputError` for a blueprint."""
        return self._required(self._scheduler_config, "scheduler")

    def _required(self, part: Any, name: str) -> Any:
        if part is None:
            raise InputError(f"the blueprint of {self.checkpoint} has no {name}; load the editor")
        return part

    def scheduler(self, steps: int) -> DDIMScheduler:
        """Returns the checkpoint's deterministic sampler, set to `steps` steps.

        Raises `InputError` unless 1 <= steps <= the number of training timesteps, and for a
        blueprint.
        """
        return make_scheduler(self.scheduler_config, steps)

    @property
    def device(self) -> torch.device:
        """The backbone's device."""
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The backbone's dtype."""
        return next(self.unet.parameters()).dtype

    @property
    def pixel_factor(self) -> int:
        """Pixels per latent, in both directions."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the latent size `(h, w)` of a frame size `(H, W)`.

        Raises `InputError` for a frame size that is not a multiple of `pixel_factor`.
        """
        check_size(size, self.pixel_factor)
        return size[0] // self.pixel_factor, size[1] // self.pixel_factor

    def sites(self, latent_size: tuple[int, int]) -> tuple[Site, ...]:
        """Returns the backbone's attention sites at a latent size `(h, w)`."""
        return find_sites(self.unet, latent_size)

    def hooked(self, sites: Sequence[Site], attend: Attend) -> AbstractContextManager[None]:
        """Returns a context in which all sites call `attend`."""
        return hooked(self.unet, sites, attend, self.wiring)

    def wiring(self, site: Site, batch: int) -> Tensor | None:
        """Returns which entries of a batch each sequence of a site attends to, `(batch, R)`.

        None means that each sequence attends to itself (see `attention.hooks.Wiring`).
        """
        return None

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Returns hidden states `(B, N, E)` of prompts, padded to the encoder's length."""
        ids = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt"
        )["input_ids"]
        where = next(self.text_encoder.parameters()).device
        states: Tensor = self.text_encoder(ids.to(where)).last_hidden_state
        return states.to(self.device)

    @record_function("freemask.vae.encode")
    @torch.no_grad()
    def encode(self, video: Video) -> Tensor:
        """Returns latents `(1, C, F, h, w)`: the posterior's mean, scaled for the backbone.

        Raises `InputError` for a frame size that is not a multiple of `pixel_factor`.
        """
        self.latent_size(video.size)
        return encode_frames(self.vae, video.frames, self.frames_per_pass)

    @record_function("freemask.vae.decode")
    @torch.no_grad()
    def decode(self, latents: Tensor, fps: float) -> Video:
        """Returns the clip of latents `(1, C, F, h, w)`."""
        return Video(decode_frames(self.vae, latents, self.frames_per_pass), fps)

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits of a hash of the backbone's weights.

        Codebook files name their checkpoint by it, so its value never changes.
        """
        digest = hashlib.sha256()
        for name, weight in sorted(self.unet.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().half().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def dependencies(self) -> dict[str, Any]:
        """Everything about this editor that its edits depend on, as JSON types.

        Holds the editor's name, options and dtype, and a fingerprint of all weights. It is computed
        once, which takes seconds for large backbones.
        """
        parts = (self.unet, self.vae, self.text_encoder)
        return {
            "name": self.name,
            "options": asdict(self.options),
            "dtype": str(self.dtype),
            "weights": fingerprint([part.state_dict() for part in parts]),
        }

    def describe(self) -> dict[str, Any]:
        """Returns what result.json says about the editor, as JSON types."""
        return {
            "name": self.name,
            "checkpoint": self.checkpoint,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            **self.traits,
        }

    def offload(self) -> None:
        """Moves the text encoder and the VAE, which run once per edit, to the CPU."""
        self.text_encoder.to("cpu")
        self.vae.to("cpu")
