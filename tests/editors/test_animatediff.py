"""AnimateDiff: the network equals the one that diffusers makes of the same two parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

from freemask.attention.hooks import plain
from freemask.editors.registry import load_editor
from freemask.types import InputError


def test_the_network_equals_the_motion_model_of_diffusers(
    sd_checkpoint: Path, adapter: Path
) -> None:
    editor = load_editor(
        "animatediff",
        checkpoint=sd_checkpoint,
        device="cpu",
        options={"motion_adapter": str(adapter)},
    )
    stock = UNetMotionModel.from_unet2d(
        UNet2DConditionModel.from_pretrained(sd_checkpoint / "unet"),
        MotionAdapter.from_pretrained(adapter),
    ).eval()
    sites = editor.sites((4, 6))
    kinds = [site.kind for site in sites]
    motion_modules = 2 + 1 + 4
    assert [kinds.count(k) for k in ("self", "cross", "temporal")] == [7, 7, 2 * motion_modules]
    latents, text = torch.randn(2, 4, 3, 4, 6), torch.randn(2, 5, 16)
    with torch.no_grad():
        theirs = stock(latents, 321, text.repeat_interleave(3, 0)).sample
        with editor.hooked(sites, plain):
            ours = editor.predict(latents, 321, text)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_stable_diffusion_without_an_adapter_is_refused(sd_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="without a motion adapter"):
        load_editor("animatediff", checkpoint=sd_checkpoint, device="cpu")
    nowhere = {"motion_adapter": "./nowhere"}
    with pytest.raises(InputError, match=r"'./nowhere' is neither a folder nor a hub id"):
        load_editor("animatediff", checkpoint=sd_checkpoint, device="cpu", options=nowhere)
