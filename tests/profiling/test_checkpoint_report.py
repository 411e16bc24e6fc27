"""The report of which editors load a checkpoint, with what sites and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from freemask.cli.commands import main
from freemask.editors.registry import available, editor_class
from freemask.profiling.checkpoint_report import (
    BACKBONES,
    KINDS,
    find_checkpoint,
    load_blueprints,
    sites_by_kind,
)
from freemask.types import InputError


def test_every_editor_of_stable_diffusion_finds_its_sites() -> None:
    counts = {
        "tune_a_video": (16, 16, 16),
        "fatezero": (16, 16, 16),
        "text2video_zero": (16, 16, 0),
        "animatediff": (16, 16, 42),
    }
    loaded, refused = load_blueprints(BACKBONES / "sd-1.5", available(), torch.float16, {})
    assert set(loaded) >= set(counts)
    assert "UNet2DConditionModel" in refused["zeroscope"]
    for name, expected in counts.items():
        found = sites_by_kind(loaded[name], (512, 512))
        assert tuple(sum(found[kind].values()) for kind in KINDS) == expected


def test_sites_of_zeroscope_have_the_resolutions_of_its_levels() -> None:
    editor = editor_class("zeroscope").blueprint(BACKBONES / "zeroscope", torch.float16)
    found = sites_by_kind(editor, (320, 576))
    assert [sum(found[kind].values()) for kind in KINDS] == [16, 16, 34]
    assert found["temporal"] == {(40, 72): 12, (20, 36): 10, (10, 18): 10, (5, 9): 2}


def test_the_command_prints_which_editors_load_a_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["editors", "--checkpoint", "sprites-t2v", "--size", "64x96"]) == 0
    printed = capsys.readouterr().out
    assert "zeroscope on sprites-t2v" in printed
    assert "  temporal   22  8 at 16x24, 6 at 8x12, 8 at 4x6" in printed
    assert "text2video_zero: no, " in printed
    assert "tune_a_video: no, " in printed
    assert "use editor=zeroscope" in printed  # one reason, not a list of missing weights


def test_the_command_prints_memory(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--checkpoint", "sd-1.5", "--editor", "text2video_zero", "--memory"]
    assert main(["editors", *arguments]) == 0
    header, columns, row = capsys.readouterr().out.splitlines()
    assert header == "8 frames of 512x512, 50 steps, float16"
    assert columns.split()[:2] == ["GiB", "weights"]
    assert row.split()[-1] == "36.19"


def test_an_unknown_checkpoint_is_an_error() -> None:
    with pytest.raises(InputError, match="neither a folder nor a hub id"):
        find_checkpoint(Path("nothing"))


def test_a_checkpoint_that_no_editor_loads_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["editors", "--checkpoint", "zeroscope", "--editor", "text2video_zero"]
    assert main(arguments) == 2
    assert "holds a UNet3DConditionModel" in capsys.readouterr().err
