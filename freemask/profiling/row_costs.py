"""Measures edits that compute the tokens inside their mask, in units of plain guided generation.

Three tables: a block of Wan 2.1 1.3B at full width with random weights, an edit of the profiled
clip without its VAE, and the passes of the backbone that an edit of real size would run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from freemask import kernels
from freemask.attention.hooks import AttentionCall, plain
from freemask.editors.editor import Editor
from freemask.editors.registry import load_blueprint
from freemask.editors.wan_attention import WanProcessor, find_wan_sites, text_projection
from freemask.kernels.dev.cost import GPUS
from freemask.kernels.dev.timing import Calls, interleave, peak_bytes
from freemask.prepare import prepare
from freemask.profiling.checkpoint_report import BACKBONES
from freemask.profiling.edit_cost import GPU, UTILISATION, costs_of
from freemask.profiling.request import ProfileRequest
from freemask.resolve import for_editor
from freemask.sampling.denoising import denoise
from freemask.sampling.generation import generate
from freemask.sampling.inversion import invert_for
from freemask.settings.presets import load_settings
from freemask.types import Masks, Video

SHARE = 0.2  # of the rows, in the table of the block
BLOCK_TOKENS = 8192
COVERAGES = (0.2, 0.5)
EVERY = (1, 2)  # values of `fusion.source_every`
ROUNDS = 5
REAL = (81, (480, 832))  # frames and size of a clip of Wan 2.1
REAL_STEPS = 50
PEERS = {  # backbone calls of published editors of Wan in 50 steps, from their sources
    "FlowEdit (arXiv 2412.08629), 41 of 50 steps": 41 * 4,
    "FlowDirector, 40 of 50 steps": 40 * 16,
}


@torch.no_grad()
def block_times(tokens: int = BLOCK_TOKENS, rounds: int = ROUNDS) -> dict[str, float]:
    """Returns median seconds of one block of Wan 2.1 1.3B on the CPU, in float32: over all tokens
    with its stock processors ("all"), and over a SHARE of them that read the keys and values of the
    others where they lie ("inside")."""
    from diffusers import WanTransformer3DModel

    config = WanTransformer3DModel.load_config(BACKBONES / "wan-2.1-1.3b" / "transformer")
    model = WanTransformer3DModel.from_config({**config, "num_layers": 1}).eval()
    block: Any = model.blocks[0]
    generator = torch.Generator().manual_seed(0)
    width, dim = block.attn1.inner_dim, config["attention_head_dim"]
    hidden = torch.randn(1, tokens, width, generator=generator)
    text = torch.randn(1, 512, width, generator=generator)
    angles = torch.rand(1, tokens, 1, dim, generator=generator)
    modulation = torch.randn(1, 6, width, generator=generator)
    outside = tokens - round(SHARE * tokens)
    inside, turned = hidden[:, outside:], (angles[:, outside:].cos(), angles[:, outside:].sin())
    k, v = torch.randn(2, 1, outside, config["num_attention_heads"], dim).transpose(2, 3)
    ones = kernels.MaskPlan.from_mask(torch.ones(1, tokens - outside))

    def attend(call: AttentionCall) -> Tensor:
        if call.site.kind == "cross":
            return plain(call)
        keys = {"q_source": call.q, "k_source": call.k, "k_outside": k, "v_outside": v}
        return kernels.blended_attention(call.q, call.k, call.v, mask=ones, **keys)

    def run(rows: Tensor, rotation: tuple[Tensor, Tensor], *, hooked: bool) -> None:
        for layer in (block.attn1, block.attn2):
            layer.processor = (sparse if hooked else stock)[layer]
        block(rows, text, modulation, rotation)

    stock = {layer: layer.processor for layer in (block.attn1, block.attn2)}
    sparse = {
        layer: WanProcessor(site, layer, attend, text_projection(layer, torch.nn.Identity()))
        for site, layer in zip(find_wan_sites(model, (1, 1)), stock, strict=True)
    }
    calls: Calls = {
        "all": partial(run, hidden, (angles.cos(), angles.sin()), hooked=False),
        "inside": partial(run, inside, turned, hooked=True),
    }
    times = interleave(calls, rounds, "cpu")
    return {name: statistics.median(seconds) for name, seconds in times.items()}


@contextmanager
def without_vae(editor: Editor, clip: Video) -> Iterator[None]:
    """A context in which the VAE costs nothing: encoding gives the clip's latents, decoding the
    clip."""
    latents = editor.encode(clip)
    stubs: dict[str, Callable[..., Any]] = {
        "encode": lambda *_: latents,
        "decode": lambda *_: clip,
    }
    vars(editor).update(stubs)
    try:
        yield
    finally:
        for name in stubs:
            delattr(editor, name)


def box_mask(frames: int, size: tuple[int, int], coverage: float, cell: int) -> Tensor:
    """Returns a mask `(1, F, H, W)` of whole cells from the top on, about a share of each frame.

    cell: pixels of a token, in both directions.
    """
    rows, columns = size[0] // cell, size[1] // cell
    mask = torch.zeros(rows * columns)
    mask[: math.ceil(coverage * rows * columns)] = 1
    grown = mask.view(rows, columns).repeat_interleave(cell, 0).repeat_interleave(cell, 1)
    return grown.expand(1, frames, *size).clone()


def edit_times(request: ProfileRequest, editor: Editor) -> list[dict[str, Any]]:
    """Returns a record for each coverage and each `source_every`: seconds, passes and peak bytes of
    an edit, in units of plain guided generation of as many steps, interleaved."""
    clip, steps = request.clip(), request.steps
    preset = load_settings(request.task, family=editor.family)
    overrides = {"fusion.rows": "inside", "fusion.margin": 0.0, "strength": preset.strength}
    # reads as many levels as edits do, where the profile otherwise reads all
    overrides["mask.policy"] = preset.mask.policy if editor.codebook else "consensus"
    edit_request = request.edit_request(**overrides)
    plain_run = partial(
        generate, editor, edit_request.target, frames=clip.num_frames, size=clip.size, steps=steps
    )
    cell = editor.size_multiple
    runs: Calls = {"plain": plain_run}
    records = []
    for coverage in COVERAGES:
        masks = Masks(box_mask(clip.num_frames, clip.size, coverage, cell), "a box")
        for every in EVERY:
            overrides = {**edit_request.overrides, "fusion.source_every": every}
            prepared = prepare(editor, clip, replace(edit_request, overrides=overrides))

            def run(prepared: Any = prepared, masks: Masks = masks) -> Tensor:
                return denoise(editor, prepared, invert_for(editor, clip, prepared), masks)

            name = f"c = {coverage}, source_every = {every}"
            runs[name] = run
            records.append({"edit": name})
    with without_vae(editor, clip):
        times = interleave(runs, ROUNDS, editor.device.type)
        memory = {name: peak_bytes(call, editor.device.type) for name, call in runs.items()}
    base = statistics.median(times["plain"])
    return [
        {
            **record,
            "time": statistics.median(times[record["edit"]]) / base,
            "memory": memory[record["edit"]] / memory["plain"],
        }
        for record in records
    ]


def real_costs() -> list[dict[str, Any]]:
    """Returns passes, their ratio to plain guided generation, and seconds on a GPU by the cost
    model, for edits of a clip of real size with Wan 2.1 1.3B."""
    editor = load_blueprint("wan", checkpoint=BACKBONES / "wan-2.1-1.3b", dtype=torch.bfloat16)
    frames, size = REAL
    plain_calls = 2 * REAL_STEPS
    rows: list[tuple[str, float]] = [("plain guided generation", plain_calls)]
    flop = 0
    for every in EVERY:
        settings = load_settings(
            "shape", {"fusion.source_every": every, "window.frames": frames}, family=editor.family
        )
        request = ProfileRequest(steps=REAL_STEPS).edit_request()
        for cost in costs_of(
            editor, for_editor(settings, editor), request, frames=frames, size=size
        ):
            name = f"freemask, c = {cost.coverage}, source_every = {every}"
            rows.append((name, cost.calls.total))
            flop = cost.flop
    rows += PEERS.items()
    rate = GPUS[GPU].half * UTILISATION
    return [
        {"edit": name, "calls": calls, "ratio": calls / plain_calls, "seconds": calls * flop / rate}
        for name, calls in rows
    ]


def row_tables(request: ProfileRequest, editor: Editor) -> tuple[str, dict[str, Any]]:
    """Returns the three tables as text, and their records."""
    block = block_times()
    edits, real = edit_times(request, editor), real_costs()
    lines = [
        f"one block of Wan 2.1 1.3B, {BLOCK_TOKENS} tokens, {SHARE:.0%} of the rows: "
        f"{block['inside'] / block['all']:.3f} of the time of all rows",
        "",
        f"{'edit without VAE, x plain generation':40}{'time':>8}{'memory':>8}",
    ]
    lines += [f"{row['edit']:40}{row['time']:8.2f}{row['memory']:8.2f}" for row in edits]
    (frames, (h, w)), heading = REAL, f"{'Wan 2.1 1.3B, by count of passes':44}"
    lines += [
        "",
        f"{heading}{'passes':>8}{'x plain':>9}{GPU + ' s':>9}",
        *(
            f"{row['edit']:44}{row['calls']:8.1f}{row['ratio']:9.2f}{row['seconds']:9.0f}"
            for row in real
        ),
        f"{frames} frames of {h}x{w}, {REAL_STEPS} steps, backbone alone; seconds are the FLOP at "
        f"{UTILISATION:.0%} of the peak of an {GPU} in half precision",
    ]
    return "\n".join(lines), {"block": block, "edits": edits, "real": real}
