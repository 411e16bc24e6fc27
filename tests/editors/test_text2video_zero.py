"""Text2Video-Zero: its attention, its motion and its generation equal those of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from freemask.editors.registry import load_editor
from freemask.editors.text2video_zero import Text2VideoZero, shifted
from freemask.sampling.generation import generate
from freemask.types import InputError

FRAMES, SIZE = 3, (4, 6)


def load(folder: Path, **options: Any) -> Text2VideoZero:
    editor = load_editor("text2video_zero", checkpoint=folder, device="cpu", options=options)
    assert isinstance(editor, Text2VideoZero)
    return editor


def test_latents_are_shifted_as_in_diffusers() -> None:
    from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero

    first = torch.randn(1, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    stock = pipeline_text_to_video_zero.create_motion_field_and_warp_latents(
        20.0, -7.0, [0, 1, 2, 3, 4], first[:, :, 0].repeat(5, 1, 1, 1)
    )
    moved = shifted(first, (20.0, -7.0), 5)
    assert torch.equal(moved[0].transpose(0, 1), stock)
    assert not torch.equal(moved[:, :, 4], moved[:, :, 0])


def test_generation_equals_the_pipeline_of_diffusers(
    sd_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compares the final latents of whole runs from the same noise."""
    from diffusers import UNet2DConditionModel
    from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero

    editor = load(sd_checkpoint)
    frames, (h, w) = 4, (8, 8)
    shape = (1, editor.vae.config.latent_channels, frames, h, w)
    size = (h * editor.pixel_factor, w * editor.pixel_factor)
    ours: list[Tensor] = []
    monkeypatch.setattr(editor, "decode", lambda latents, fps, frames: ours.append(latents))
    generate(editor, "a bear", frames=frames, size=size, steps=50, seed=3)

    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(shape, generator=generator)

    def fresh(size: torch.Size, generator: torch.Generator, **_: Any) -> Tensor:
        drawn = torch.randn(1, size[1], size[0], *size[2:], generator=generator)
        return drawn[0].transpose(0, 1)

    monkeypatch.setattr(pipeline_text_to_video_zero, "randn_tensor", fresh)
    pipeline = pipeline_text_to_video_zero.TextToVideoZeroPipeline(
        editor.vae, editor.text_encoder, editor.tokenizer,
        UNet2DConditionModel.from_pretrained(sd_checkpoint / "unet"),
        editor.scheduler(50), None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "a bear", video_length=frames, height=size[0], width=size[1], latents=noise[:, :, 0],
        generator=generator, output_type="latent",
    ).images  # fmt: skip
    theirs = torch.as_tensor(theirs)
    error = (ours[0][0].transpose(0, 1) - theirs).abs().max()
    assert error < 1e-3 * theirs.abs().max()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"motion": [1.0]}, r"motion is \[1\.0\]; it must be two numbers"),
        ({"motion_window": [0.1, 1.2]}, "must be two fractions"),
        ({"motion_window": [0.1]}, "must be two fractions"),
    ],
)
def test_a_malformed_motion_is_refused(
    sd_checkpoint: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        load(sd_checkpoint, **options)


def test_one_frame_is_generated_without_motion(sd_checkpoint: Path) -> None:
    editor = load(sd_checkpoint, anchor=2)
    noise = torch.randn(1, 4, 1, *SIZE)
    scheduler = editor.scheduler(50)
    start, latents = editor.begin(noise, lambda *_: noise, scheduler, torch.Generator())
    assert (start, latents) == (0, noise)
    assert generate(editor, "a bear", frames=3, size=(16, 16), steps=4).num_frames == 3


def test_self_attention_equals_the_processor_of_diffusers(sd_checkpoint: Path) -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero

    editor = load(sd_checkpoint)
    stock = UNet2DConditionModel.from_pretrained(sd_checkpoint / "unet").eval()
    stock.set_attn_processor(pipeline_text_to_video_zero.CrossFrameAttnProcessor(batch_size=2))
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, FRAMES, *SIZE, generator=generator)
    text = torch.randn(2, 5, 16, generator=generator)
    images = latents.transpose(1, 2).flatten(0, 1)
    with torch.no_grad():
        theirs = stock(images, 321, text.repeat_interleave(FRAMES, 0)).sample
        ours = editor.predict(latents, 321, text)
        other = load(sd_checkpoint, anchor=1).predict(latents, 321, text)
    torch.testing.assert_close(ours.transpose(1, 2).flatten(0, 1), theirs, rtol=1e-4, atol=1e-5)
    assert (ours - other).abs().max() > 1e-3
    with pytest.raises(InputError, match="anchor is 7; the clip's frames are 0 to 2"):
        load(sd_checkpoint, anchor=7).predict(latents, 321, text)


def test_it_has_no_temporal_sites(sd_checkpoint: Path) -> None:
    assert {site.kind for site in load(sd_checkpoint).sites(SIZE)} == {"self", "cross"}
