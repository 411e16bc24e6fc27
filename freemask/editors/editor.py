"""Defines `Editor`: a pretrained video backbone and the interface through which freemask uses it.

Latents are float32 `(B, C, F, h, w)` everywhere outside an editor, where F counts latent frames
(`LatentTime`); text states are `(B, N, E)`.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from freemask.attention.hooks import Attend, Processor, hooked
from freemask.attention.lanes import Lane
from freemask.attention.ranks import ALONE, Ranks
from freemask.editors.checkpoint_format import CheckpointFormat
from freemask.editors.latent_time import LatentTime
from freemask.editors.latents import check_size
from freemask.io.fingerprint import fingerprint
from freemask.types import InputError, Site, Video

Denoise = Callable[[Tensor, int, int], Tensor]  # latents, first step, step to stop before
ENCODE_BATCH = 8  # frames that the VAE encodes or decodes at once, unless memory is short


class Editor(CheckpointFormat):
    """A backbone with its VAE, text encoder, tokenizer and scheduler.

    `load` makes an editor from a checkpoint, `blueprint` one without weights. A subclass reads and
    checks its checkpoints (`CheckpointFormat`), and says how the backbone predicts, where its
    attention sites are and how their layers are projected. `UNetEditor` does most of this for the
    UNets of diffusers.

    runs_lanes: whether the backbone runs lanes (`predict_lanes`).
    ranks: the processes that share a clip's tokens; of an editor that runs lanes, `share` sets it.
    frames_per_pass: frames that the VAE encodes or decodes at once.
    attention_part_bytes: `part_bytes` of fused attention; None for the kernels' default.
    """

    runs_lanes: ClassVar[bool] = False
    ranks: Ranks = ALONE
    frames_per_pass: int = ENCODE_BATCH
    attention_part_bytes: int | None = None

    def __init__(
        self,
        *,
        backbone: nn.Module,
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

        backbone: the denoising network, frozen, as `load_backbone` returns it.
        vae, text_encoder: frozen diffusers and transformers models.
        options: an instance of `Options`.
        checkpoint: the folder or hub id that the parts come from.
        tokenizer, scheduler_config: None in a blueprint.
        codebook: the codebook file of the checkpoint, or None.
        traits: what else was asked for (revision, variant, LoRA files), for `result.json`.
        notes: remarks on the checkpoint for the user, a line each.
        """
        self.backbone, self.vae, self.text_encoder = backbone, vae, text_encoder
        self.options, self.checkpoint, self.codebook = options, checkpoint, codebook
        self._tokenizer, self._scheduler_config = tokenizer, scheduler_config
        self.traits, self.notes = dict(traits or {}), tuple(notes)

    def place(self, device: torch.device) -> None:
        """See `CheckpointFormat.place`."""
        for part in (self.backbone, self.vae, self.text_encoder):
            part.to(device)

    @property
    @abstractmethod
    def latent_time(self) -> LatentTime:
        """How latent frames cover the frames of a clip."""

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """Channels C of the latents."""

    @property
    @abstractmethod
    def pixel_factor(self) -> int:
        """Pixels per latent, in both directions."""

    @property
    def size_multiple(self) -> int:
        """Pixels of which both sides of a frame must be multiples."""
        return self.pixel_factor

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the latent size `(h, w)` of a frame size `(H, W)`.

        Raises `InputError` for a frame size that is not a multiple of `size_multiple`.
        """
        check_size(size, self.size_multiple)
        return size[0] // self.pixel_factor, size[1] // self.pixel_factor

    def latent_shape(self, frames: int, size: tuple[int, int]) -> tuple[int, int, int, int, int]:
        """Returns the shape `(1, C, F, h, w)` of a clip's latents.

        frames, size: of the clip, in pixels.
        """
        h, w = self.latent_size(size)
        return 1, self.latent_channels, self.latent_time.latent_frames(frames), h, w

    def decoder_input(self, frames: int, size: tuple[int, int]) -> tuple[int, ...]:
        """Returns the shape of the latents that the VAE decodes at once.

        frames, size: of the clip, in pixels.
        """
        return self.latent_shape(frames, size)

    @property
    def resident(self) -> tuple[nn.Module, ...]:
        """The parts whose weights stay on a GPU; the others are there only while they compute."""
        return self.backbone, self.vae, self.text_encoder

    @abstractmethod
    def encode(self, video: Video) -> Tensor:
        """Returns latents `(1, C, F, h, w)`: the posterior's mean, scaled for the backbone.

        Raises `InputError` for a frame size that is not a multiple of `size_multiple`.
        """

    @abstractmethod
    def decode(self, latents: Tensor, fps: float, frames: int | None = None) -> Video:
        """Returns the clip of latents `(1, C, F, h, w)`.

        frames: number of frames to return, at most those that the latents cover; None for all.
        """

    @property
    @abstractmethod
    def text_shape(self) -> tuple[int, int]:
        """Tokens N and width E of the text states."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Returns hidden states `(B, N, E)` of prompts, padded to N tokens."""

    @abstractmethod
    def predict(self, latents: Tensor, timestep: float, text: Tensor) -> Tensor:
        """Returns the backbone's output `(B, C, F, h, w)`.

        latents: `(B, C, F, h, w)`.
        timestep: training timestep, from 0.
        text: text states, `(B, N, E)`.
        """

    def predict_lanes(self, lanes: Sequence[Lane], timestep: float) -> list[Tensor]:
        """Returns the backbone's output of each lane, `(B, C, F, h, w)`, zero at tokens that the
        lane does not carry. Lanes run in lockstep, in their order.

        timestep: training timestep, from 0.

        Raises `InputError` if the backbone does not run lanes (`runs_lanes`).
        """
        raise InputError(f"the backbone of editor {self.name} computes whole clips, not tokens")

    def share(self, ranks: Ranks) -> None:
        """Lets processes share the tokens of every clip: each computes some of them.

        All of them must then make the same calls in the same order.

        Raises `InputError` if the backbone does not run lanes.
        """
        if not self.runs_lanes:
            raise InputError(
                f"the backbone of editor {self.name} computes whole clips, not tokens, which "
                "processes could share; give each clip to one of them"
            )
        self.ranks = ranks

    @abstractmethod
    def sites(self, latent_size: tuple[int, int]) -> tuple[Site, ...]:
        """Returns the backbone's attention sites at a latent size `(h, w)`."""

    def released_sites(self, sites: Sequence[Site]) -> tuple[Site, ...]:
        """Returns the fixed cross sites of `mask.sites=released`; an editor may have none.

        sites: the backbone's attention sites.
        """
        return ()

    def layers(self, site: Site) -> tuple[nn.Module, ...]:
        """Returns the attention modules of a site: one, unless the backbone has several experts."""
        return (self.backbone.get_submodule(site.name),)

    @abstractmethod
    def processor(self, site: Site, layer: nn.Module, attend: Attend) -> Processor:
        """Returns a processor of a layer that projects, calls `attend`, and projects back.

        Raises `InputError` for a layer with an option that is not supported.
        """

    @abstractmethod
    def project(self, layer: nn.Module, hidden: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        """Returns queries, keys and values `(B, H, N, D)` of a layer that attends to text.

        hidden: hidden states of the latents, `(B, N, C)`.
        text: text states, `(B, N, E)`.
        """

    def hooked(self, sites: Sequence[Site], attend: Attend) -> AbstractContextManager[None]:
        """Returns a context in which all sites call `attend`.

        Raises `InputError` for a layer with an option that is not supported.
        """
        return hooked(
            [
                (layer, self.processor(site, layer, attend))
                for site in sites
                for layer in self.layers(site)
            ]
        )

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

    def scheduler(self, steps: int) -> Any:
        """Returns the checkpoint's deterministic scheduler, set to `steps` steps.

        Raises `InputError` for steps that it cannot make, and for a blueprint.
        """
        return self.make_scheduler(self.scheduler_config, steps)

    @property
    def device(self) -> torch.device:
        """The backbone's device."""
        return next(self.backbone.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The backbone's dtype."""
        return next(self.backbone.parameters()).dtype

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits of a hash of the backbone's weights.

        Codebook files name their checkpoint by it, so its value never changes.
        """
        digest = hashlib.sha256()
        for name, weight in sorted(self.backbone.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().half().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def dependencies(self) -> dict[str, Any]:
        """Everything about this editor that its edits depend on, as JSON types.

        Holds the editor's name, options and dtype, and a fingerprint of all weights. It is computed
        once, which takes seconds for large backbones.
        """
        parts = (self.backbone, self.vae, self.text_encoder)
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
