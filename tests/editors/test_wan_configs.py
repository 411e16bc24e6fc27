"""Public configurations of Wan on the meta device, and one block of full width on the CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from tiny_wan import TRANSFORMER
from torch import Tensor

from freemask.attention.hooks import AttentionCall
from freemask.editors.editor import Editor
from freemask.editors.latent_time import LatentTime
from freemask.editors.registry import editor_class, native_frame
from freemask.editors.wan_checkpoints import WanBackbone
from freemask.pipeline import edit
from freemask.profiling.checkpoint_report import BACKBONES
from freemask.profiling.footprint import footprint
from freemask.profiling.memory_check import Clip, least_bytes
from freemask.types import EditRequest, Video

GIB = 2**30
CONFIGS = {  # blocks, heads, parameters in 10^9, size, channels, tokens of 81 frames
    "wan-2.1-1.3b": (30, 12, 1.42, (480, 832), 16, 32760),
    "wan-2.1-14b": (40, 40, 14.29, (480, 832), 16, 32760),
    "wan-2.2-ti2v-5b": (30, 24, 5.00, (704, 1280), 48, 18480),
    "wan-2.2-a14b": (40, 40, 28.58, (480, 832), 16, 32760),
}


@cache
def blueprint(name: str, **options: Any) -> Editor:
    kind = editor_class("wan")
    return kind.blueprint(BACKBONES / name, torch.bfloat16, kind.Options(**options))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_public_configuration_has_the_published_sizes(name: str) -> None:
    blocks, heads, parameters, size, channels, tokens = CONFIGS[name]
    editor = blueprint(name)
    count = sum(weight.numel() for weight in editor.backbone.parameters())
    assert count / 1e9 == pytest.approx(parameters, abs=0.01)
    assert sum(p.numel() for p in editor.text_encoder.parameters()) / 1e9 == pytest.approx(
        5.68, abs=0.01
    )
    sites = editor.sites(editor.latent_size(size))
    assert [site.kind for site in sites] == ["self", "cross"] * blocks
    assert editor.latent_time == LatentTime(4)
    assert editor.latent_shape(81, size)[:3] == (1, channels, 21)
    assert editor.text_shape == (512, 4096)
    h, w = sites[0].resolution
    assert 21 * h * w == tokens
    frame = native_frame("wan", BACKBONES / name)
    assert (frame.size, frame.multiple) == (size, editor.size_multiple)
    assert len(editor.layers(sites[0])) == (2 if name.endswith("a14b") else 1)
    assert editor.layers(sites[0])[0].heads == heads
    assert editor.backbone.timestep_per_token == ("5b" in name)
    assert editor.backbone.boundary == 875


@pytest.mark.parametrize("name", ["wan-2.1-1.3b", "wan-2.2-ti2v-5b"])
@torch.no_grad()
def test_every_site_attends_over_the_whole_clip(name: str) -> None:
    blocks, heads, _, size, channels, tokens = CONFIGS[name]
    editor, seen = blueprint(name), []

    def attend(call: AttentionCall) -> Tensor:
        seen.append((call.site.kind, tuple(call.q.shape), tuple(call.k.shape)))
        return call.q.new_empty(call.q.shape)

    latents = torch.empty(editor.latent_shape(81, size), device="meta")
    text = torch.empty(1, *editor.text_shape, device="meta")
    with editor.hooked(editor.sites(editor.latent_size(size)), attend):
        output = editor.predict(latents, 500.0, text)
    rows, words = (1, heads, tokens, 128), (1, heads, 512, 128)
    assert output.shape == (1, channels, *latents.shape[2:])
    assert seen == [("self", rows, rows), ("cross", rows, words)] * blocks


MEMORY = {  # weights and peak of 81 frames at the native size, in GiB
    "wan-2.1-1.3b": (3.1, 13.7),
    "wan-2.1-14b": (27.1, 37.7),
    "wan-2.2-ti2v-5b": (11.9, 31.0),
    "wan-2.2-a14b": (53.7, 64.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_memory_of_an_edit_counts_the_text_encoder_only_while_it_encodes(name: str) -> None:
    editor, size = blueprint(name), CONFIGS[name][3]
    found = footprint(editor, frames=81, size=size)
    weights, peak = MEMORY[name]
    assert found.weights / GIB == pytest.approx(weights, abs=0.1)
    assert found.text / GIB == pytest.approx(10.6, abs=0.1)
    assert found.peak / GIB == pytest.approx(peak, abs=0.5)
    assert found.trajectory == 51 * 4 * np.prod(editor.latent_shape(81, size))


@pytest.mark.slow
def test_group_offloading_fits_14b_into_24_gib() -> None:
    clip = Clip(81, (480, 832))
    plain, offloaded = blueprint("wan-2.1-14b"), blueprint("wan-2.1-14b", offload="group")
    assert least_bytes(plain, clip, 50, 2, on_gpu=True) > 30 * GIB
    assert least_bytes(offloaded, clip, 50, 2, on_gpu=True) < 12 * GIB
    assert footprint(offloaded, frames=21, size=(480, 832)).peak < 24 * GIB


def full_width(wan: Editor) -> Editor:
    """The tiny editor with one block of Wan 2.1 1.3B in place of its transformer."""
    width = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "freq_dim": 256}
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(**{**TRANSFORMER, **width, "num_layers": 1})
    return type(wan)(
        backbone=WanBackbone(transformer).eval().requires_grad_(False),
        vae=wan.vae,
        text_encoder=wan.text_encoder,
        options=wan.options,
        checkpoint="one block",
        tokenizer=wan.tokenizer,
        scheduler_config=wan.scheduler_config,
    )


@pytest.mark.slow
@pytest.mark.parametrize("state", ["coupled", "pinned"])
def test_a_fused_step_of_a_full_width_block_equals_the_reference(state: str, wan: Editor) -> None:
    editor = full_width(wan)
    generator = np.random.default_rng(0)
    clip = Video(generator.integers(0, 256, (5, 64, 96, 3), dtype=np.uint8))
    mask = torch.zeros(5, 64, 96)
    mask[:, 16:48, 24:72] = 1
    found = {}
    for backend in ("auto", "reference"):
        overrides = {
            "backend": backend, "flow.state": state, "fusion.self_replace": [0.0, 1.0],
            "fusion.cross_replace": [0.0, 1.0],
        }  # fmt: skip
        request = EditRequest(
            "a bear on the grass", "a panda on the grass", ("bear", "panda"), steps=1,
            overrides=overrides,
        )  # fmt: skip
        edit(
            editor, clip, request, mask=mask,
            callback_on_step_end=lambda editor, step, t, now, backend=backend: found.update(
                {backend: now["latents"]}
            ),
        )  # fmt: skip
    assert found["auto"].shape == (1, 4, 2, 16, 24)
    torch.testing.assert_close(found["auto"], found["reference"], rtol=1e-4, atol=1e-4)
