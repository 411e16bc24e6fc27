"""A look is taken once; masks of it need no backbone. The sheet of its cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_edits import ask, spied

from freemask.editors.editor import Editor
from freemask.types import InputError, Video
from freemask.ui.looks import Look, agreement_with, as_overrides, look, overlay
from freemask.ui.mask_sheet import GAP, HEAD, LABEL, MaskSheet

NAIVE = {"mask.policy": "naive"}


@pytest.fixture
def looked(editor: Editor, small: Video) -> Look:
    return look(editor, small, ask(NAIVE), columns=3)


def test_masks_are_redrawn_without_the_backbone(
    looked: Look, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spied(editor, monkeypatch) as sizes:
        whole, heat = looked.masks()
        low, high = (looked.masks(threshold=t)[0].values[-1] for t in (0.2, 0.9))
        assert sizes == []
    assert heat.shape == whole.values[-1].shape
    assert torch.equal(low, (heat >= 0.2).float())
    assert high.sum() < low.sum()
    cell = next(iter(MaskSheet(looked).cells.values()))
    alone, of_cell = looked.masks(threshold=0.5, cells=[cell])
    assert torch.equal(alone.values[-1], (of_cell >= 0.5).float())
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


def test_an_overlay_shows_heat_mask_and_margin() -> None:
    video = Video(np.full((2, 16, 16, 3), 100, np.uint8))
    mask = torch.zeros(2, 16, 16)
    mask[:, 6:10, 6:10] = 1
    plain = overlay(video, None, mask).frames
    assert (plain[0, 6, 6] == 255).all()
    assert (plain[0, 0, 0] == 100).all()
    wide = overlay(video, None, mask, margin=0.2).frames
    assert (wide != plain).any()
    hot = overlay(video, mask, mask).frames
    assert hot[0, 8, 8].sum() > hot[0, 0, 0].sum()


def test_agreement_and_overrides() -> None:
    a, b = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    assert agreement_with(a, b) == 1
    a[0, 0], b[0, :, 0] = 1, 1
    assert agreement_with(a, b) == pytest.approx(1 / 3)
    assert as_overrides(None, None) == {}
    assert as_overrides(0.4, 0.1) == {
        "mask.threshold": 0.4, "mask.binarise": "threshold", "fusion.margin": 0.1
    }  # fmt: skip


def test_a_click_means_the_cell_under_it(looked: Look) -> None:
    sheet = MaskSheet(looked)
    picture = sheet.draw()
    width, height = sheet._tile
    names, columns = list(sheet.cells), len(looked.main.timesteps)
    found = set()
    for y in range(0, picture.shape[0], 3):
        for x in range(0, picture.shape[1], 3):
            found.add(sheet.name_at(x, y))
    assert found == {None, *names}
    for place, name in enumerate(names):
        row, column = divmod(place, columns)
        left, top = LABEL + column * (width + GAP), HEAD + row * (height + GAP + HEAD)
        assert sheet.name_at(left, top) == sheet.name_at(left + width - 1, top + height - 1) == name
    assert sheet.name_at(0, 0) is sheet.name_at(-5, -5) is sheet.name_at(10**6, 10**6) is None


def test_chosen_cells_are_framed_and_ranked_by_cost(looked: Look) -> None:
    sheet = MaskSheet(looked)
    name = list(sheet.cells)[-1]
    changed = (sheet.draw([name]) != sheet.draw()).any(-1)
    rows, columns = np.nonzero(changed)
    assert sheet.name_at(int(columns.mean()), int(rows.mean())) == name
    labels = sheet.labelled()
    costs = [float(text.split(": ")[-1]) for text, _ in labels]
    assert costs == sorted(costs)
    assert {name for _, name in labels} == set(sheet.cells)
    assert sheet.chosen([name]) == [sheet.cells[name]]
    with pytest.raises(InputError, match="'up 9 at t = 3' is no cell"):
        sheet.chosen(["up 9 at t = 3"])
