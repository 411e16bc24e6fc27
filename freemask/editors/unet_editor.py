"""Defines `UNetEditor`: what the UNets of Stable Diffusion, ModelScope and Zeroscope share.

Their checkpoints have an image VAE, CLIP's text encoder and a noise schedule for DDIM. Every latent
frame is one frame of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.profiler import record_function

from freemask.attention.hooks import Attend, Processor
from freemask.editors.checkpoints import (
    UNET_LAYOUT,
    Checkpoint,
    Layout,
    check_class,
    check_text_width,
)
from freemask.editors.editor import Editor
from freemask.editors.latent_time import LatentTime
from freemask.editors.latents import decode_frames, encode_frames
from freemask.editors.native_size import NativeFrame, native_frame_of, vae_factor
from freemask.editors.scheduler import make_scheduler
from freemask.editors.single_file import open_checkpoint
from freemask.editors.unet_attention import UNetProcessor, project_context, project_queries
from freemask.editors.unet_sites import find_sites, released_sites
from freemask.types import Site, Video


class UNetEditor(Editor):
    """An editor whose backbone is a UNet of diffusers. A subclass writes `load_backbone` and
    `predict`.

    beta_schedule: the noise schedule of its family, for checkpoints without a scheduler.
    """

    layout: ClassVar[Layout] = UNET_LAYOUT
    beta_schedule: ClassVar[str] = "scaled_linear"

    @classmethod
    def reader(cls, path: Path, dtype: torch.dtype, variant: str | None = None) -> Checkpoint:
        """See `CheckpointFormat.reader`."""
        return open_checkpoint(path, dtype, variant)

    @classmethod
    def check_configs(cls, files: Checkpoint) -> None:
        """See `CheckpointFormat.check_configs`."""
        cls.check_unet(files.folder)
        check_text_width(files.folder)

    @classmethod
    def check_unet(cls, folder: Path) -> None:
        """Raises `InputError` unless the folder's UNet has one of the `architectures`."""
        check_class(folder, cls.architectures)

    @classmethod
    def native_frame(cls, files: Checkpoint, name: str) -> NativeFrame:
        """See `CheckpointFormat.native_frame`."""
        return native_frame_of(files.config("unet"), files.config("vae"), name=name)

    @classmethod
    def frame_multiple(cls, files: Checkpoint) -> int:
        """See `CheckpointFormat.frame_multiple`."""
        return vae_factor(files.config("vae"))

    @classmethod
    def read_scheduler(cls, files: Checkpoint) -> tuple[Any, tuple[str, ...]]:
        """See `CheckpointFormat.read_scheduler`."""
        return files.scheduler_config(beta_schedule=cls.beta_schedule)

    @classmethod
    def make_scheduler(cls, config: Any, steps: int) -> DDIMScheduler:
        """See `CheckpointFormat.make_scheduler`."""
        return make_scheduler(config, steps)

    @classmethod
    def load_vae(cls, checkpoint: Checkpoint) -> Any:
        """See `CheckpointFormat.load_vae`."""
        from diffusers import AutoencoderKL

        return checkpoint.model(AutoencoderKL, "vae")

    @classmethod
    def load_text_encoder(cls, checkpoint: Checkpoint) -> Any:
        """See `CheckpointFormat.load_text_encoder`."""
        from transformers import CLIPTextModel

        return checkpoint.model(CLIPTextModel, "text_encoder")

    @classmethod
    def load_tokenizer(cls, checkpoint: Checkpoint) -> Any:
        """See `CheckpointFormat.load_tokenizer`."""
        return checkpoint.tokenizer()

    @property
    def latent_time(self) -> LatentTime:
        """See `Editor.latent_time`."""
        return LatentTime()

    @property
    def latent_channels(self) -> int:
        """See `Editor.latent_channels`."""
        return int(self.vae.config.latent_channels)

    @property
    def pixel_factor(self) -> int:
        """See `Editor.pixel_factor`."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def text_shape(self) -> tuple[int, int]:
        """See `Editor.text_shape`."""
        config = self.text_encoder.config
        return config.max_position_embeddings, config.hidden_size

    def decoder_input(self, frames: int, size: tuple[int, int]) -> tuple[int, ...]:
        """See `Editor.decoder_input`."""
        return min(frames, self.frames_per_pass), self.latent_channels, *self.latent_size(size)

    def sites(self, latent_size: tuple[int, int]) -> tuple[Site, ...]:
        """See `Editor.sites`."""
        return find_sites(self.backbone, latent_size)

    def released_sites(self, sites: Sequence[Site]) -> tuple[Site, ...]:
        """See `Editor.released_sites`."""
        return released_sites(sites)

    def processor(self, site: Site, layer: nn.Module, attend: Attend) -> Processor:
        """See `Editor.processor`."""
        return UNetProcessor(site, layer, attend, self.wiring)

    def project(self, layer: nn.Module, hidden: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        """See `Editor.project`."""
        return project_queries(layer, hidden), *project_context(layer, text)

    def wiring(self, site: Site, batch: int) -> Tensor | None:
        """Returns which entries of a batch each sequence of a site attends to, `(batch, R)`.

        None means that each sequence attends to itself (see `unet_attention.Wiring`).
        """
        return None

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """See `Editor.encode_text`."""
        ids = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt"
        )["input_ids"]
        where = next(self.text_encoder.parameters()).device
        states: Tensor = self.text_encoder(ids.to(where)).last_hidden_state
        return states.to(self.device)

    @record_function("freemask.vae.encode")
    @torch.no_grad()
    def encode(self, video: Video) -> Tensor:
        """See `Editor.encode`."""
        self.latent_size(video.size)
        return encode_frames(self.vae, video.frames, self.frames_per_pass)

    @record_function("freemask.vae.decode")
    @torch.no_grad()
    def decode(self, latents: Tensor, fps: float, frames: int | None = None) -> Video:
        """See `Editor.decode`."""
        kept = latents[:, :, :frames]
        return Video(decode_frames(self.vae, kept, self.frames_per_pass), fps)
