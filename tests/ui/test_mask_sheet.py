"""The sheet of a look: which cell a click means, and what is drawn around the chosen ones."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_edits import ask

from freemask.calibration.look import Look, look
from freemask.editors.editor import Editor
from freemask.types import InputError, Video
from freemask.ui.mask_sheet import GAP, HEAD, LABEL, MaskSheet

NAIVE = {"mask.policy": "naive"}


@pytest.fixture
def looked(editor: Editor, small: Video) -> Look:
    return look(editor, small, ask(NAIVE), columns=3)


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
