"""A look is taken once; masks of it need no backbone."""

from __future__ import annotations

import pytest
import torch
from tiny_edits import ask, spied

from freemask.calibration import look as look_module
from freemask.calibration.look import Look, look
from freemask.editors.editor import Editor
from freemask.masks.build import region_heats
from freemask.pipeline import find_masks
from freemask.prepare import prepare
from freemask.sampling.inversion import invert_for
from freemask.types import InputError, Video

NAIVE = {"mask.policy": "naive"}


@pytest.fixture
def looked(editor: Editor, small: Video) -> Look:
    return look(editor, small, ask(NAIVE), columns=3)


def test_masks_are_redrawn_without_the_backbone(
    looked: Look, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spied(editor, monkeypatch) as sizes:
        whole, heat = looked.mask(), looked.heat()
        low, high = (looked.mask(threshold=t) for t in (0.2, 0.9))
        assert sizes == []
    assert heat.shape == whole.shape
    assert torch.equal(low, (heat >= 0.2).float())
    assert high.sum() < low.sum()
    cell = next(iter(looked.main.maps)), 0
    alone, of_cell = looked.mask(threshold=0.5, cells=[cell]), looked.heat(cells=[cell])
    assert torch.equal(alone, (of_cell >= 0.5).float())
    assert not torch.equal(of_cell, heat)


def test_tasks_without_a_mask_say_so(editor: Editor, small: Video) -> None:
    with pytest.raises(InputError, match="task style uses no mask"):
        look(editor, small, ask({}, task="style", words=()))
    with pytest.raises(InputError, match="the place of a new object shows during the edit"):
        look(
            editor,
            small,
            ask({}, target="a bear with a panda on the grass", task="add", words=("", "panda")),
        )


def test_the_mask_is_the_edits_own(looked: Look, editor: Editor, small: Video) -> None:
    prepared = prepare(editor, small, ask(NAIVE))
    expected = find_masks(small, prepared, invert_for(editor, small, prepared))
    assert torch.equal(looked.masks().values, expected.values)
    assert looked.selection.origin == expected.origin


def test_another_threshold_averages_no_maps(looked: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    averaged: list[int] = []
    monkeypatch.setattr(
        look_module, "region_heats", lambda *given: averaged.append(1) or region_heats(*given)
    )
    for threshold in (0.2, 0.5, None):
        looked.mask(threshold=threshold)
        looked.heat()
    assert averaged == [1]
    cell = next(iter(looked.main.maps)), 0
    looked.mask(cells=[cell], threshold=0.3)
    looked.heat(cells=[cell])
    assert averaged == [1, 1]
