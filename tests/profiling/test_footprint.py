"""What an edit takes, counted on the meta device: against real runs, and against published sums."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from freemask.cli.commands import main
from freemask.editors.registry import ASSETS, available, editor_class, load_editor
from freemask.kernels.dev.timing import peak_bytes
from freemask.profiling import footprint
from freemask.profiling.footprint import BACKBONES, FusedAttention, LiveBytes
from freemask.types import InputError

SD, ZEROSCOPE = BACKBONES / "sd-1.5", BACKBONES / "zeroscope"


def test_live_bytes_are_what_is_held_at_once() -> None:
    with LiveBytes() as live:
        a = torch.empty(1000, device="meta")
        b = a + 1
        a.view(10, 100).add_(1)  # neither a view nor an in-place result is new memory
        del b
        c = a * 2
    assert live.now == 8000
    assert live.peak == 8000
    del a, c
    assert live.now == 0


def test_the_meta_device_counts_what_a_real_run_allocates() -> None:
    """Of a UNet forward pass, the profiler's own account of the CPU allocator is the witness."""
    real = load_editor("zeroscope", device="cpu")
    sketch = editor_class("zeroscope").blueprint(ASSETS / "sprites-t2v", torch.float32)
    inputs = footprint._inputs(real, 3, 8, (64, 96))
    with torch.inference_mode():
        measured = peak_bytes(lambda: real.predict(*inputs), "cpu")
    counted = footprint._denoise_peak(sketch, 3, 8, (64, 96))
    assert 0.75 * measured < counted < 1.1 * measured  # convolutions also take workspaces
    assert footprint.weight_bytes(sketch.unet) == footprint.weight_bytes(real.unet)


def test_fused_attention_makes_no_map() -> None:
    q = torch.empty(1, 8, 4096, 40, device="meta")
    with FusedAttention(), LiveBytes() as live:
        out = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert out.shape == q.shape
    assert live.peak == q.nbytes


@pytest.mark.parametrize(
    ("name", "options", "gib"),
    [
        ("text2video_zero", {}, 36.2),
        ("fatezero", {"frames": ["first", -1], "least_sc_channel": 0}, 69.4),
    ],
)
def test_the_maps_of_the_releases_are_the_published_sum(
    name: str, options: dict[str, object], gib: float
) -> None:
    """FateZero's maps on SD 1.5, 8 frames, 50 steps, one and two key frames; no temporal ones."""
    loaded, _ = footprint.editors_of(SD, [name], torch.float16, options)
    editor = loaded[name]
    _, maps = footprint._attention_sizes(editor, 8, (512, 512))
    assert maps["self"] + maps["cross"] == pytest.approx(gib * 2**30 / 50, rel=0.002)


def test_sites_of_the_shipped_configs() -> None:
    counts = {
        "tune_a_video": (16, 16, 16),
        "fatezero": (16, 16, 16),
        "text2video_zero": (16, 16, 0),
        "animatediff": (16, 16, 42),
    }
    loaded, refused = footprint.editors_of(SD, available(), torch.float16, {})
    assert set(loaded) >= set(counts)
    assert "UNet2DConditionModel" in refused["zeroscope"]
    for name, expected in counts.items():
        found = footprint.sites_by_kind(loaded[name], (512, 512))
        assert tuple(sum(found[kind].values()) for kind in footprint.KINDS) == expected
    zeroscope = editor_class("zeroscope").blueprint(ZEROSCOPE, torch.float16)
    found = footprint.sites_by_kind(zeroscope, (320, 576))
    assert [sum(found[kind].values()) for kind in footprint.KINDS] == [16, 16, 34]
    assert found["temporal"] == {(40, 72): 12, (20, 36): 10, (10, 18): 10, (5, 9): 2}


def test_a_footprint_grows_with_what_it_should() -> None:
    editor = editor_class("zeroscope").blueprint(ASSETS / "sprites-t2v", torch.float16)
    small = footprint.footprint(editor, frames=4, size=(64, 64), steps=10)
    large = footprint.footprint(editor, frames=8, size=(64, 64), steps=20)
    assert small.weights == large.weights
    assert large.trajectory == 4 * 8 * 16 * 16 * 4 * 21
    assert large.denoise == pytest.approx(2 * small.denoise, rel=0.05)
    assert large.features == 4 * small.features  # of a run, per frame and per step
    assert large.peak == large.weights + large.trajectory + max(large.denoise, large.decode)


def test_the_command_says_who_loads_what(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["editors", "--checkpoint", "sprites-t2v", "--size", "64x96"]) == 0
    said = capsys.readouterr().out
    assert "zeroscope on sprites-t2v" in said
    assert "  temporal   22  8 at 16x24, 6 at 8x12, 8 at 4x6" in said
    assert "text2video_zero: no, " in said
    assert "tune_a_video: no, " in said
    assert "use editor=zeroscope" in said  # not one of a hundred weights that do not fit


def test_the_command_prints_memory(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--checkpoint", "sd-1.5", "--editor", "text2video_zero", "--memory"]
    assert main(["editors", *arguments]) == 0
    header, columns, row = capsys.readouterr().out.splitlines()
    assert header == "8 frames of 512x512, 50 steps, float16"
    assert columns.split()[:2] == ["GiB", "weights"]
    assert row.split()[-1] == "36.19"


def test_a_folder_that_no_editor_loads_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="neither a folder nor a hub id"):
        footprint.locate("nothing")
    arguments = ["editors", "--checkpoint", "zeroscope", "--editor", "text2video_zero"]
    assert main(arguments) == 2
    assert "holds a UNet3DConditionModel" in capsys.readouterr().err
