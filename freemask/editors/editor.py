"""What a base editor is: a pretrained video backbone and how to talk to it.

Latents are float32 `(B, C, F, h, w)` everywhere outside an editor; text states are `(B, N, E)`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.profiler import record_function

from freemask.attention.hooks import Attend, hooked
from freemask.attention.sites import find_sites
from freemask.editors import checkpoints
from freemask.types import InputError, Site, Video

Denoise = Callable[[Tensor, int, int], Tensor]  # latents, first step, step to stop before
CODEBOOK = "codebook.json"  # in a checkpoint's folder, if one was measured
ENCODE_BATCH = 8  # frames that go through the VAE at a time, unless memory is short


@dataclass
class NoOptions:
    """Of an editor that leaves nothing to choose."""


class Editor(ABC):
    """A backbone with its VAE, text encoder and tokenizer; made by `load`.

    name: in the registry. architectures: classes of the UNets that it loads. Options: a dataclass
    of what can be chosen when one is loaded. unet, vae, text_encoder, tokenizer: as diffusers
    loads them.
    scheduler_config: of the checkpoint. checkpoint: where it came from. codebook: the codebook
    file that was shipped for this checkpoint, if there is one.
    """

    name: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]
    Options: ClassVar[type] = NoOptions
    options: Any
    unet: nn.Module
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: Any
    checkpoint: str
    codebook: Path | None
    frames_per_pass: int = ENCODE_BATCH  # through the VAE

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        options: Any = None,
    ) -> Editor:
        """Load a checkpoint folder. Raises `InputError` for one that is not for this editor."""
        folder = checkpoints.resolve(checkpoint)
        cls.check(folder)
        editor = cls._read(checkpoints.Checkpoint(folder, dtype), options, device)
        editor.scheduler_config = checkpoints.load_scheduler_config(folder)
        editor.tokenizer = checkpoints.load_tokenizer(folder)
        editor.checkpoint = str(checkpoint)
        codebook = folder / CODEBOOK
        editor.codebook = codebook if codebook.exists() else None
        return editor

    @classmethod
    def blueprint(cls, folder: Path, dtype: torch.dtype, options: Any = None) -> Editor:
        """The editor of a folder's configs on the meta device: sites and sizes, but no weights, no
        tokenizer and no scheduler. Raises `InputError` as `load` does.
        """
        cls.check_unet(folder)
        with torch.device("meta"):
            blueprint = checkpoints.Blueprint(folder, dtype)
            return cls._read(blueprint, options, torch.device("meta"))

    @classmethod
    def _read(
        cls, checkpoint: checkpoints.Checkpoint, options: Any, device: torch.device
    ) -> Editor:
        editor = cls()
        editor.options = options or cls.Options()
        editor.unet = editor.load_unet(checkpoint).to(device).eval().requires_grad_(False)
        editor.vae = checkpoint.vae().to(device)
        editor.text_encoder = checkpoint.text_encoder().to(device)
        return editor

    @classmethod
    def check(cls, folder: Path) -> None:
        """Raises `InputError` unless the folder holds a checkpoint of this editor."""
        checkpoints.check_layout(folder)
        cls.check_unet(folder)
        checkpoints.check_text_width(folder)

    @classmethod
    def check_unet(cls, folder: Path) -> None:
        """Raises `InputError` unless the folder's UNet is of this editor's architecture."""
        checkpoints.check_class(folder, cls.architectures)

    @abstractmethod
    def load_unet(self, checkpoint: checkpoints.Checkpoint) -> nn.Module:
        """The backbone of a checkpoint that was checked."""

    @abstractmethod
    def predict(self, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        """The backbone's output for `latents (B, C, F, h, w)` under `text (B, N, E)`."""

    def begin(
        self, noise: Tensor, denoise: Denoise, scheduler: Any, generator: torch.Generator
    ) -> tuple[int, Tensor]:
        """Where generation from `noise (1, C, F, h, w)` starts: a step, and the latents there.

        denoise: runs guided steps, from one up to another, for latents of any number of frames.
        """
        return 0, noise

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def pixel_factor(self) -> int:
        """Pixels per latent, in both directions."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Latent `(h, w)` of a frame size. Raises `InputError` for one the VAE does not divide."""
        check_size(size, self.pixel_factor)
        return size[0] // self.pixel_factor, size[1] // self.pixel_factor

    def sites(self, latent_size: tuple[int, int]) -> tuple[Site, ...]:
        """The backbone's attention sites at a latent size."""
        return find_sites(self.unet, latent_size)

    def hooked(self, sites: Sequence[Site], attend: Attend) -> AbstractContextManager[None]:
        """Route all sites through `attend` for as long as the context lasts."""
        return hooked(self.unet, sites, attend, self.wiring)

    def wiring(self, site: Site, batch: int) -> Tensor | None:
        """Which entries of a batch each sequence of a site sees (`attention.Wiring`); its own."""
        return None

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Hidden states `(B, N, E)` of prompts, padded to the encoder's length."""
        ids = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt"
        )["input_ids"]
        where = next(self.text_encoder.parameters()).device
        states: Tensor = self.text_encoder(ids.to(where)).last_hidden_state
        return states.to(self.device)

    @record_function("freemask.vae.encode")
    @torch.no_grad()
    def encode(self, video: Video) -> Tensor:
        """A clip as latents `(1, C, F, h, w)`: the posterior's mean, scaled for the backbone."""
        self.latent_size(video.size)
        pixels = torch.from_numpy(video.frames).permute(0, 3, 1, 2) / 127.5 - 1
        weights = next(self.vae.parameters())
        means = [
            self.vae.encode(batch.to(weights)).latent_dist.mean.float()
            for batch in pixels.split(self.frames_per_pass)
        ]
        latents = torch.cat(means) * self.vae.config.scaling_factor
        return rearrange(latents, "f c h w -> 1 c f h w")

    @record_function("freemask.vae.decode")
    @torch.no_grad()
    def decode(self, latents: Tensor, fps: float) -> Video:
        """Latents `(1, C, F, h, w)` as a clip."""
        frames = rearrange(latents, "1 c f h w -> f c h w") / self.vae.config.scaling_factor
        weights = next(self.vae.parameters())
        pixels = torch.cat(
            [
                self.vae.decode(batch.to(weights)).sample.float().cpu()
                for batch in frames.split(self.frames_per_pass)
            ]
        )
        levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return Video(np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy()), fps)

    def fingerprint(self) -> str:
        """A short hash of the backbone's weights, by which a codebook knows its checkpoint."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.unet.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().half().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything about an editor that its edits depend on, of JSON's types: its name and
        options, the dtype, and a hash of every weight. Computed once; seconds for large backbones.
        """
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.unet, self.vae, self.text_encoder):
            for name, weight in sorted(part.state_dict().items()):
                digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
                digest.update(weight.detach().cpu().flatten().view(torch.uint8).numpy())
        return {
            "name": self.name,
            "options": asdict(self.options),
            "dtype": str(self.dtype),
            "weights": digest.hexdigest(),
        }

    def offload(self) -> None:
        """Move what runs once an edit, the text encoder and the VAE, to the CPU."""
        self.text_encoder.to("cpu")
        self.vae.to("cpu")


def check_size(size: tuple[int, int], factor: int) -> None:
    """Raises `InputError` for a frame size `(H, W)` that is not made of `factor`-sized cells."""
    if min(size) < factor or any(n % factor for n in size):
        raise InputError(
            f"frames are {size[0]}x{size[1]} (height x width); both must be multiples of "
            f"{factor} for this checkpoint"
        )
