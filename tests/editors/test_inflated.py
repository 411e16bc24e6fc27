"""Inflated editors: frame tables, and which batch entries self-attention sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from freemask.editors.inflated import InflatedEditor, frame_table
from freemask.editors.registry import load_editor
from freemask.types import InputError


def load(name: str, folder: Path, **options: Any) -> InflatedEditor:
    editor = load_editor(name, checkpoint=folder, device="cpu", options=options)
    assert isinstance(editor, InflatedEditor)
    return editor


def test_relative_frames_stay_inside_the_clip() -> None:
    table = frame_table(["first", -1, 2, "mid", "last"], 4)
    assert table.tolist() == [[0, 0, 2, 1, 3], [0, 0, 3, 1, 3], [0, 1, 3, 1, 3], [0, 2, 3, 1, 3]]


def test_only_self_attention_sees_other_frames_and_only_of_its_own_clip(
    sd_checkpoint: Path,
) -> None:
    editor = load("tune_a_video", sd_checkpoint)
    editor.clip.frames = 3
    for site in editor.sites((4, 6)):
        table = editor.wiring(site, 6)
        if site.kind != "self":
            assert table is None
            continue
        assert table is not None
        assert table.tolist() == [[0, 0], [0, 0], [0, 1], [3, 3], [3, 3], [3, 4]]


def test_narrow_layers_see_their_own_frame(sd_checkpoint: Path) -> None:
    editor = load("fatezero", sd_checkpoint, least_sc_channel=32)
    editor.clip.frames = 3
    own = [site for site in editor.sites((4, 6)) if site.kind == "self"]
    wired = {site.level for site in own if editor.wiring(site, 3) is not None}
    assert wired == {1}  # 32 channels; level 0 has 16
    none = load("fatezero", sd_checkpoint, frames=[], least_sc_channel=0)
    assert all(none.wiring(site, 3) is None for site in own)


def test_unknown_options_and_frame_choices_are_named(sd_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="unknown config key 'frame'; did you mean 'frames'"):
        load("fatezero", sd_checkpoint, frame=["mid"])
    with pytest.raises(InputError, match="frame choice 'middle' is neither"):
        load("fatezero", sd_checkpoint, frames=["middle"])
    with pytest.raises(InputError, match="unknown config key 'anchor'"):
        load("zeroscope", sd_checkpoint, anchor=1)
