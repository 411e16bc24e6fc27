"""The inverted source of `sprites-wan`: under its own prompt the clip comes back."""

from __future__ import annotations

import pytest

from freemask import edit
from freemask.editors import load_editor
from freemask.evaluation.metrics import psnr
from freemask.evaluation.samples import sprites_samples
from freemask.types import EditRequest

LOSS = 1.0  # dB; 0.0 to 0.7 over four clips


@pytest.mark.parametrize("solver", ["euler", "multistep"])
def test_a_reconstruction_is_within_a_decibel_of_the_vae(solver: str) -> None:
    wan = load_editor("wan", device="cpu")
    (source,) = sprites_samples(["shape"], 1, frames=9)
    sample = source.load()
    video, prompt = sample.video, sample.request.source
    request = EditRequest(
        prompt, prompt, method="inversion", guidance=1.0, overrides={"flow.solver": solver}
    )
    found = edit(wan, video, request).video
    through_vae = wan.decode(wan.encode(video), video.fps, video.num_frames)
    assert psnr(through_vae, video) > 20
    assert psnr(found, video) > psnr(through_vae, video) - LOSS
