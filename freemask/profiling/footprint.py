"""Counts the memory of one edit from an editor's configs alone, without a GPU and without weights.

The editor runs on the meta device, where tensors have shapes and no values, and `LiveBytes` adds up
what a real run would hold at once. The CUDA context, cuDNN's workspaces and fragmentation, together
often about a GiB, come on top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from freemask.attention.fusion import steps_reading_source
from freemask.attention.hooks import AttentionCall
from freemask.editors.editor import Editor
from freemask.profiling.live_memory import FusedAttention, LiveBytes
from freemask.settings.presets import load_settings
from freemask.settings.sections import Settings
from freemask.types import Site

REFERENCE_ROWS = 32**2  # rows of the largest map that the reference implementations store
BATCH = 2  # branches in one pass of the backbone, in a guided step, with or without a replay


@dataclass(frozen=True)
class Footprint:
    """Memory of one edit, in bytes.

    weights: the parts that stay on the GPU (`Editor.resident`).
    text: the text encoder, where it is on the GPU only while it encodes the prompts; else 0.
    denoise: peak of denoising above the weights, with the source replayed.
    decode: peak of the VAE's decoder above the weights.
    trajectory: the inverted latents, in float32.
    features: the queries and keys that `features=store` keeps, in host memory.
    maps: the attention maps that the reference implementations store, in the same dtype.
    """

    weights: int
    text: int
    denoise: int
    decode: int
    trajectory: int
    features: int
    maps: int

    @property
    def peak(self) -> int:
        """Bytes on the GPU at the peak, with the source replayed."""
        return self.weights + max(self.text, self.trajectory + max(self.denoise, self.decode))


def footprint(
    editor: Editor,
    *,
    frames: int = 8,
    size: tuple[int, int] = (512, 512),
    steps: int = 50,
    task: str = "shape",
) -> Footprint:
    """Returns the memory of one guided edit with the preset of a task.

    editor: from `Editor.blueprint`, or a loaded one.
    frames: frames of the clip; the clip is one window.
    size: `(H, W)` in pixels.
    steps: steps of the inversion and of the edit.
    task: "shape", "attribute" or "style".

    Raises `InputError` for a size that is not a multiple of the VAE's factor.
    """
    settings = load_settings(task, family=editor.family)
    per_step, maps = _attention_sizes(editor, frames, size)
    latents = math.prod(editor.latent_shape(frames, size)) * 4
    return Footprint(
        weights=resident_bytes(editor),
        text=0 if editor.text_encoder in editor.resident else weight_bytes(editor.text_encoder),
        denoise=denoise_peak(editor, BATCH, frames, size),
        decode=_decode_peak(editor, frames, size),
        trajectory=(steps + 1) * latents,
        features=_stored(per_step, settings, steps),
        maps=sum(maps.values()) * steps,
    )


def stored_bytes(
    editor: Editor, frames: int, size: tuple[int, int], steps: int, settings: Settings
) -> int:
    """Returns the bytes of queries and keys that `features=store` keeps under some settings."""
    per_step, _ = _attention_sizes(editor, frames, size)
    return _stored(per_step, settings, steps)


def _stored(per_step: dict[Site, int], settings: Settings, steps: int) -> int:
    reads = {site: len(steps_reading_source(site, settings, steps)) for site in per_step}
    return sum(size * reads[site] for site, size in per_step.items())


def weight_bytes(model: nn.Module) -> int:
    """Returns the bytes of a model's parameters and buffers."""
    return sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))


def resident_bytes(editor: Editor) -> int:
    """Returns the bytes of the parts of an editor that stay on a GPU."""
    return sum(map(weight_bytes, editor.resident))


def inputs_of(editor: Editor, branches: int, frames: int, size: tuple[int, int]) -> tuple[Any, ...]:
    """Returns arguments of `Editor.predict` for a number of branches."""
    _, *shape = editor.latent_shape(frames, size)
    latents = torch.empty(branches, *shape, device=editor.device)
    text = torch.empty(branches, *editor.text_shape, device=editor.device, dtype=editor.dtype)
    return latents, 1, text


@torch.inference_mode(False)
@torch.no_grad()
def denoise_peak(editor: Editor, branches: int, frames: int, size: tuple[int, int]) -> int:
    """Returns the bytes of one pass of the backbone above its weights.

    branches: branches in the pass. frames, size: as in `footprint`.
    """
    inputs = inputs_of(editor, branches, frames, size)
    with FusedAttention(), LiveBytes() as live:
        editor.predict(*inputs)
    return live.peak


@torch.inference_mode(False)
@torch.no_grad()
def _decode_peak(editor: Editor, frames: int, size: tuple[int, int]) -> int:
    """Returns the bytes of one pass of the VAE's decoder above its weights."""
    dtype = next(editor.vae.parameters()).dtype
    latents = torch.empty(editor.decoder_input(frames, size), device=editor.device, dtype=dtype)
    with FusedAttention(), LiveBytes() as live:
        editor.vae.decode(latents)
    return live.peak


@torch.no_grad()
def _attention_sizes(
    editor: Editor, frames: int, size: tuple[int, int]
) -> tuple[dict[Site, int], dict[Site, int]]:
    """Returns bytes by site, for one branch and step: queries and keys, and the reference map."""
    features: dict[Site, int] = {}
    maps: dict[Site, int] = {}

    def attend(call: AttentionCall) -> Tensor:
        features[call.site] = call.q.nbytes + call.k.nbytes
        maps[call.site] = _reference_map(call)
        return call.q.new_empty(call.q.shape)

    with editor.hooked(editor.sites(editor.latent_size(size)), attend):
        editor.predict(*inputs_of(editor, 1, frames, size))
    return features, maps


def _reference_map(call: AttentionCall) -> int:
    """Returns the bytes of the map that the reference implementations store for a call."""
    site: Site = call.site
    if site.kind != "temporal" and math.prod(site.resolution) > REFERENCE_ROWS:
        return 0
    seen = 1 if call.frame_table is None else call.frame_table.shape[1]
    batch, heads, queries = call.q.shape[:3]
    return batch * heads * queries * call.k.shape[2] * seen * call.q.element_size()
