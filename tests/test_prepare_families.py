"""Presets, methods and remarks that follow from the family of an editor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_edits import NAIVE

from freemask.editors.editor import Editor
from freemask.editors.request import EditorRequest
from freemask.pipeline import edit
from freemask.prepare import preflight, prepare
from freemask.settings.presets import load_settings
from freemask.types import EditRequest, InputError, Video

REQUEST = EditRequest("a bear on the grass", "a panda on the grass", task="shape", steps=4)
TINY = (16, 24)


@pytest.fixture
def tiny(video: Video) -> Video:
    return Video(video.frames[:5, : TINY[0], : TINY[1]].copy())


def with_overrides(overrides: dict[str, Any]) -> EditRequest:
    return replace(REQUEST, overrides=overrides)


def test_an_edit_has_the_preset_of_its_editors_family(
    wan: Editor, editor: Editor, tiny: Video, small: Video
) -> None:
    prepared = prepare(wan, tiny, REQUEST)
    expected = load_settings("shape", method="uncalibrated", family="flow")
    assert prepared.settings.mask == expected.mask
    assert prepared.settings.strength == expected.strength == 0.75
    assert prepared.settings.source == "noised"
    assert prepare(editor, small, REQUEST).settings.strength == 0.7
    assert prepare(wan, tiny, with_overrides({"strength": 0.5})).settings.strength == 0.5


def test_a_method_of_another_family_is_refused_before_weights_are_read(
    wan: Editor, wan_checkpoint: Path, tiny: Video, editor: Editor, small: Video
) -> None:
    with pytest.raises(InputError, match=r"'ddim' does not serve flow editors; .*flowedit_mask"):
        prepare(wan, tiny, replace(REQUEST, method="ddim"))
    wanted = EditorRequest(editor="wan", checkpoint=str(wan_checkpoint), device="cpu")
    with pytest.raises(InputError, match="'fatezero' does not serve flow editors"):
        preflight(wanted, replace(REQUEST, method="fatezero"), TINY)
    preflight(wanted, replace(REQUEST, method="flowedit"), TINY)
    with pytest.raises(InputError, match="'sdedit' does not serve diffusion editors"):
        prepare(editor, small, replace(REQUEST, method="sdedit"))


def test_settings_that_an_editor_ignores_are_remarked_on(
    wan: Editor, editor: Editor, tiny: Video, small: Video
) -> None:
    given = NAIVE | {"fusion.temporal_mode": "qk", "fusion.invert_temporal": True}
    request = with_overrides(given)
    [note] = prepare(wan, tiny, request).notes
    assert note == (
        "wan has no temporal attention: fusion.temporal_mode and fusion.invert_temporal have no "
        "effect"
    )
    assert prepare(editor, small, request).notes == ()  # it has temporal attention
    assert note in edit(wan, tiny, request).notes
    flow = NAIVE | {"flow.solver": "euler", "eta": 0.5}
    assert prepare(editor, small, with_overrides(flow)).notes == (
        "zeroscope does not match a flow: flow.solver has no effect",
    )
    outside = NAIVE | {"fusion.outside": "own"}
    assert prepare(editor, small, with_overrides(outside)).notes == (
        "zeroscope computes whole clips, not tokens: fusion.outside has no effect",
    )
    assert prepare(wan, tiny, with_overrides(outside)).notes == ()
    [note] = prepare(wan, tiny, with_overrides(flow)).notes
    assert note == "wan samples without further noise: eta has no effect"
    assert prepare(wan, tiny, with_overrides(NAIVE)).notes == ()


def test_the_released_site_of_wan_is_that_of_public_editors(wan: Editor, tiny: Video) -> None:
    """Block 18 of 30, which is block 2 of 3."""
    given = {"mask.sites": "released", "mask.policy": "time_agnostic", "mask.binarise": "threshold"}
    selection = prepare(wan, tiny, with_overrides(given)).selection
    assert selection is not None
    assert {site.name for cells in selection.cells for site, _ in cells} == {"blocks.2.attn2"}
    assert selection.threshold == 0.3


def test_without_a_codebook_a_flow_model_reads_all_layers_at_three_levels(
    wan: Editor, tiny: Video
) -> None:
    request = EditRequest("a bear on the grass", "a panda on the grass", task="shape", steps=10)
    prepared = prepare(wan, tiny, request)
    assert prepared.request.method == "uncalibrated"
    assert prepared.selection
    assert len(prepared.selection.entries) == 3
    names = {site.name for cells in prepared.selection.cells for site, _ in cells}
    assert names == {site.name for site in prepared.sites if site.kind == "cross"}
    assert "what the maps of all layers agree on" in prepared.notes[0]
