"""The memory of one edit, counted from configs, against real runs and published sums."""

from __future__ import annotations

import pytest
import torch

from freemask.editors.registry import ASSETS, editor_class, load_editor
from freemask.kernels.dev.timing import peak_bytes
from freemask.profiling import footprint
from freemask.profiling.checkpoint_report import BACKBONES, load_blueprints


def test_the_meta_device_counts_what_a_real_run_allocates() -> None:
    """Compares a forward pass of a UNet with the profiler's records of the CPU allocator."""
    real = load_editor("zeroscope", device="cpu")
    blueprint = editor_class("zeroscope").blueprint(ASSETS / "sprites-t2v", torch.float32)
    inputs = footprint.inputs_of(real, 3, 8, (64, 96))
    with torch.inference_mode():
        measured = peak_bytes(lambda: real.predict(*inputs), "cpu")
    counted = footprint.denoise_peak(blueprint, 3, 8, (64, 96))
    assert 0.75 * measured < counted < 1.1 * measured  # convolutions also need workspaces
    assert footprint.weight_bytes(blueprint.backbone) == footprint.weight_bytes(real.backbone)


@pytest.mark.parametrize(
    ("name", "options", "gib"),
    [
        ("text2video_zero", {}, 36.2),
        ("fatezero", {"frames": ["first", -1], "least_sc_channel": 0}, 69.4),
    ],
)
def test_the_reference_maps_add_up_to_the_published_sum(
    name: str, options: dict[str, object], gib: float
) -> None:
    """FateZero's maps on SD 1.5, 8 frames, 50 steps, one and two key frames; no temporal ones."""
    loaded, _ = load_blueprints(BACKBONES / "sd-1.5", [name], torch.float16, options)
    _, maps = footprint._attention_sizes(loaded[name], 8, (512, 512))
    spatial = sum(size for site, size in maps.items() if site.kind != "temporal")
    assert spatial == pytest.approx(gib * 2**30 / 50, rel=0.002)


def test_a_footprint_grows_with_frames_and_steps() -> None:
    editor = editor_class("zeroscope").blueprint(ASSETS / "sprites-t2v", torch.float16)
    small = footprint.footprint(editor, frames=4, size=(64, 64), steps=10)
    large = footprint.footprint(editor, frames=8, size=(64, 64), steps=20)
    assert small.weights == large.weights
    assert large.trajectory == 4 * 8 * 16 * 16 * 4 * 21
    assert large.denoise == pytest.approx(2 * small.denoise, rel=0.05)
    assert large.features == 4 * small.features  # proportional to frames and to steps
    assert large.peak == large.weights + large.trajectory + max(large.denoise, large.decode)
