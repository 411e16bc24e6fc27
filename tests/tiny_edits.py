"""Edits on a tiny backbone: requests, masks, and what the backbone is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from freemask.editors.editor import Editor
from freemask.pipeline import find_masks
from freemask.prepare import prepare
from freemask.sampling.denoising import denoise
from freemask.sampling.inversion import invert_for
from freemask.types import EditRequest, Inversion, Video

SOURCE, TARGET = "a bear moving left on the grass", "a panda moving left on the grass"
STEPS = 4
KINDS = ("cross_replace", "self_replace", "temporal_replace")
CLOSED = {f"fusion.{kind}": [0, 0] for kind in (*KINDS, "latent_blend")}
CLOSED |= {"strength": 1.0, "fusion.pixel_blend": False, "fusion.margin": 0}
CLOSED |= {"fusion.masked": ["cross", "self", "temporal", "latents"]}
OPEN = CLOSED | {f"fusion.{kind}": [0, 1] for kind in KINDS}
BLEND = {"fusion.latent_blend": [0, 1]}
NAIVE = {"mask.policy": "naive", "mask.binarise": "threshold", "mask.threshold": 0.99}  # flat maps


def ask(overrides: dict[str, Any], **values: Any) -> EditRequest:
    request = EditRequest(
        SOURCE, TARGET, task="shape", steps=STEPS, guidance=5.0, overrides=overrides
    )
    return replace(request, **values)


def mask_of(video: Video, value: float) -> Tensor:
    return torch.full((video.num_frames, *video.size), value)


def half_mask(video: Video) -> Tensor:
    mask = mask_of(video, 0)
    mask[:, :, : video.size[1] // 2] = 1
    return mask


def edited_latents(
    editor: Editor, video: Video, request: EditRequest, mask: Tensor | None = None
) -> tuple[Tensor, Inversion]:
    plan = prepare(editor, video, request, mask=mask)
    inversion = invert_for(editor, video, plan)
    return denoise(editor, plan, inversion, find_masks(video, plan, inversion)), inversion


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


@contextmanager
def spied(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The batch size of every evaluation of the backbone."""
    sizes: list[int] = []
    predict = type(editor).predict

    def spy(self: Editor, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        sizes.append(len(latents))
        return predict(self, latents, timestep, text)

    with monkeypatch.context() as patch:
        patch.setattr(type(editor), "predict", spy)
        yield sizes


def stock_ddim(
    editor: Editor, video: Video, inversion: Inversion, prompt: str, guidance: float
) -> Tensor:
    """Guided DDIM from the inverted noise, with the attention that diffusers brings."""
    scheduler = prepare(editor, video, ask(CLOSED)).scheduler
    text = editor.encode_text(["", prompt])
    current = inversion.trajectory.latents[-1:]
    for timestep in scheduler.timesteps:
        with torch.no_grad():
            without, with_text = editor.predict(current.repeat(2, 1, 1, 1, 1), timestep, text)
        guided = (without + guidance * (with_text - without))[None]
        current = scheduler.step(guided, timestep, current).prev_sample
    return current


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
