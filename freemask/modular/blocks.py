"""The blocks: each is one line of `freemask.edit`, on the components of a `ModularPipeline`.

    encode    frames, prompts -> the editor, the clip and the prepared edit
    look      -> the source at every noise level, with the maps of its words
    mask      -> M*
    edit      -> clean latents
    decode    -> edited frames

A pipeline of other blocks may replace one, or take what stands between two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.modular_pipelines import ModularPipelineBlocks, SequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import (
    ComponentSpec,
    ConfigSpec,
    InputParam,
    OutputParam,
)

from freemask.editors.editor import Editor
from freemask.masks.build import joined
from freemask.modular.components import make_editor, modular_kind
from freemask.pipeline import decode, find_masks
from freemask.prepare import PreparedEdit, prepare
from freemask.sampling.context_windows import split
from freemask.sampling.denoising import denoise
from freemask.sampling.inversion import invert_for
from freemask.sampling.look_ahead import look_ahead
from freemask.types import EditRequest, InputError, Inversion, Masks, Video

EDIT = InputParam("editor", required=True, type_hint=Editor, description="from the block encode")
PREPARED = InputParam("prepared", required=True, type_hint=PreparedEdit, description="the edit")
CLIP = InputParam("clip", required=True, type_hint=Video, description="the source")
INVERSION = InputParam("inversion", required=True, type_hint=Inversion, description="from look")
MASKS = InputParam("masks", required=True, type_hint=Masks, description="from mask; 1 = edit")


def as_clip(frames: Any, fps: float) -> Video:
    """Returns frames as a clip.

    frames: uint8 `(F, H, W, 3)`, a float array or tensor of that shape in [0, 1], or PIL images.

    Raises `InputError` for anything else.
    """
    if isinstance(frames, Sequence):
        frames = np.stack([np.asarray(frame) for frame in frames])
    values = frames.cpu().numpy() if torch.is_tensor(frames) else np.asarray(frames)
    if values.ndim != 4 or values.shape[-1] != 3 or not len(values):
        raise InputError(f"video is {values.shape}; it must be frames (F, H, W, 3)")
    if values.dtype != np.uint8:
        values = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return Video(values, fps)


class FreeMaskEncode(ModularPipelineBlocks):
    """Makes the editor of the components, and checks the edit."""

    model_name = "freemask"
    editor_name: ClassVar[str] = "wan"

    @property
    def description(self) -> str:
        return "Makes the editor of the components, encodes the prompts and checks the edit"

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return modular_kind(self.editor_name).specs()

    @property
    def expected_configs(self) -> list[ConfigSpec]:
        configs = modular_kind(self.editor_name).configs or {}
        return [*(ConfigSpec(*pair) for pair in configs.items()), ConfigSpec("codebook", None)]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam("video", required=True, description="frames (F, H, W, 3)"),
            InputParam("source_prompt", required=True, type_hint=str, description="of the clip"),
            InputParam("prompt", required=True, type_hint=str, description="of the edited clip"),
            InputParam("words", default=(), description="(old, new), if the prompts do not say"),
            InputParam("task", default="auto", type_hint=str, description="the preset"),
            InputParam("num_inference_steps", default=50, type_hint=int, description="steps"),
            InputParam("guidance_scale", default=7.5, type_hint=float, description="1 is none"),
            InputParam("seed", default=0, type_hint=int, description="of the noise"),
            InputParam("mask", description="(F, H, W) in [0, 1], 1 = edit, in place of word maps"),
            InputParam("overrides", default=None, description="settings by dotted key"),
            InputParam("fps", default=8.0, type_hint=float, description="frames per second"),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [
            OutputParam("editor", type_hint=Editor, description="the editor"),
            OutputParam("clip", type_hint=Video, description="the source"),
            OutputParam("prepared", type_hint=PreparedEdit, description="the edit"),
        ]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        given.editor = make_editor(self.editor_name, components, components.config.get("codebook"))
        given.clip = as_clip(given.video, given.fps)
        request = EditRequest(
            given.source_prompt,
            given.prompt,
            words=given.words,
            task=given.task,
            steps=given.num_inference_steps,
            guidance=given.guidance_scale,
            seed=given.seed,
            overrides=given.overrides or {},
        )
        mask = None if given.mask is None else torch.as_tensor(given.mask)
        given.prepared = prepare(given.editor, given.clip, request, mask=mask)
        window, time = given.prepared.settings.window, given.editor.latent_time
        if len(split(given.clip.num_frames, window, time)) > 1:
            raise InputError(
                f"{given.clip.num_frames} frames are more than one context window; raise "
                "window.frames, or edit the clip with freemask.edit"
            )
        self.set_block_state(state, given)
        return components, state


class FreeMaskLook(ModularPipelineBlocks):
    """Finds the source at every noise level."""

    model_name = "freemask"

    @property
    def description(self) -> str:
        return "Finds the source at every noise level, and records the maps of its words"

    @property
    def inputs(self) -> list[InputParam]:
        return [EDIT, CLIP, PREPARED]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("inversion", type_hint=Inversion, description="levels and word maps")]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        given.inversion = invert_for(given.editor, given.clip, given.prepared)
        self.set_block_state(state, given)
        return components, state


class FreeMaskMask(ModularPipelineBlocks):
    """Makes the mask."""

    model_name = "freemask"

    @property
    def description(self) -> str:
        return "Makes M* of the selected word maps, and of a look-ahead where a word is new"

    @property
    def inputs(self) -> list[InputParam]:
        return [EDIT, CLIP, PREPARED, INVERSION]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [
            OutputParam("masks", type_hint=Masks, description="M*, 1 = edit"),
            OutputParam("begun", description="latents after a look-ahead, or None"),
        ]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        given.masks, given.begun = find_masks(given.clip, given.prepared, given.inversion), None
        if given.prepared.look_ahead:
            ahead, given.begun = look_ahead(
                given.editor, given.clip, given.prepared, given.inversion
            )
            both = [given.masks, ahead]
            given.masks = joined(both) if given.prepared.queries else ahead
        self.set_block_state(state, given)
        return components, state


class FreeMaskEdit(ModularPipelineBlocks):
    """Denoises under fusion."""

    model_name = "freemask"

    @property
    def description(self) -> str:
        return "Denoises the edit, and fuses source features under M*"

    @property
    def inputs(self) -> list[InputParam]:
        begun = InputParam("begun", description="latents after a look-ahead, or None")
        return [EDIT, PREPARED, INVERSION, MASKS, begun]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("latents", type_hint=torch.Tensor, description="clean latents")]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        given.latents = denoise(
            given.editor, given.prepared, given.inversion, given.masks, begun=given.begun
        )
        self.set_block_state(state, given)
        return components, state


class FreeMaskDecode(ModularPipelineBlocks):
    """Decodes the edit."""

    model_name = "freemask"

    @property
    def description(self) -> str:
        return "Decodes the latents, and keeps the source's pixels beyond the mask"

    @property
    def inputs(self) -> list[InputParam]:
        latents = InputParam("latents", required=True, type_hint=torch.Tensor, description="clean")
        return [EDIT, CLIP, PREPARED, MASKS, latents]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("videos", type_hint=np.ndarray, description="uint8 (F, H, W, 3)")]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        masks = given.masks.to("cpu")
        video = decode(given.editor, given.clip, given.prepared, masks, given.latents)
        given.videos = video.frames
        self.set_block_state(state, given)
        return components, state


def _named(editor: str) -> type[FreeMaskEncode]:
    """Returns the first block for an editor."""
    return type(f"FreeMaskEncode_{editor}", (FreeMaskEncode,), {"editor_name": editor})


class FreeMaskBlocks(SequentialPipelineBlocks):
    """All blocks, for Wan."""

    model_name = "freemask"
    block_classes = [FreeMaskEncode, FreeMaskLook, FreeMaskMask, FreeMaskEdit, FreeMaskDecode]  # noqa: RUF012
    block_names = ["encode", "look", "mask", "edit", "decode"]  # noqa: RUF012

    @property
    def description(self) -> str:
        return "Edits a video from two prompts with no training (FreeMask, arXiv 2409.20500)"

    @property
    def outputs(self) -> list[OutputParam]:
        return [OutputParam("videos", type_hint=np.ndarray, description="uint8 (F, H, W, 3)")]


class FreeMaskZeroscopeBlocks(FreeMaskBlocks):
    """All blocks, for Zeroscope and ModelScope."""

    block_classes = [_named("zeroscope"), *FreeMaskBlocks.block_classes[1:]]  # noqa: RUF012


BLOCKS: dict[str, type[FreeMaskBlocks]] = {
    "wan": FreeMaskBlocks,
    "zeroscope": FreeMaskZeroscopeBlocks,
}
