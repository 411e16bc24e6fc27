"""Passes of the backbone: those that were planned are those that run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from freemask.editors.editor import Editor
from freemask.pipeline import edit
from freemask.result import EditResult
from freemask.sampling.cost import stage_costs
from freemask.types import EditRequest, Video

SIZE = (32, 48)
BOX = torch.zeros(9, *SIZE)
BOX[:, 8:24, 16:40] = 1


def run(editor: Editor, *, frames: int = 9, guidance: float = 5.0, **overrides: Any) -> EditResult:
    clip = np.random.default_rng(0).integers(0, 256, (frames, *SIZE, 3), dtype=np.uint8)
    request = EditRequest(
        "a bear on the grass", "a panda on the grass", words=("bear", "panda"), steps=4,
        guidance=guidance, overrides=overrides,
    )  # fmt: skip
    masked = overrides.pop("masked", True)
    mask = BOX[:1].expand(frames, -1, -1) if masked else None
    return edit(editor, Video(clip), request, mask=mask)


WAN: dict[str, dict[str, Any]] = {
    "all": {"fusion.rows": "all"},
    "all, kept": {"fusion.rows": "all", "fusion.source_every": 2, "flow.state": "pinned"},
    "auto": {},
    "inside": {"fusion.rows": "inside"},
    "pinned": {"flow.state": "pinned"},
    "kept": {"fusion.rows": "inside", "fusion.source_every": 2},
    "own": {"fusion.rows": "inside", "fusion.outside": "own", "fusion.source_every": 3},
    "own, guided later": {
        "fusion.rows": "inside",
        "fusion.outside": "own",
        "fusion.source_every": 3,
        "guidance_range": [0.5, 1.0],
        "strength": 1.0,
    },
    "guided source": {"flow.state": "coupled", "flow.source_guidance": 3.0},
    "inverted": {"source": "inverted", "strength": 1.0},
    "some guidance": {"guidance_range": [0.5, 1.0], "strength": 1.0},
    "no fusion": {"fusion.self_replace": [0, 0], "fusion.cross_replace": [0, 0]},
    "unguided": {"guidance": 1.0},
    "own mask": {"masked": False},
    "windows": {"frames": 21, "window.frames": 13, "window.overlap": 4},
}


@pytest.mark.parametrize("name", WAN)
def test_a_transformer_runs_the_passes_that_were_planned(name: str, wan: Editor) -> None:
    result = run(wan, **WAN[name])
    assert result.planned is not None
    assert result.calls == pytest.approx(result.planned.total)
    assert result.describe()["calls"]["measured"] == pytest.approx(result.calls, abs=1e-3)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"features": "store"},
        {"guidance": 1.0},
        {"guidance_range": [0.5, 1.0]},
        {"fusion.source_every": 2, "strength": 1.0},
        {"fusion.source_every": 3, "fusion.self_replace": [0.25, 1], "strength": 1.0},
    ],
    ids=str,
)
def test_a_unet_runs_the_passes_that_were_planned(
    overrides: dict[str, Any], editor: Editor
) -> None:
    result = run(editor, **overrides)
    assert result.planned is not None
    assert result.calls == result.planned.total


def test_plain_generation_is_the_unit(wan: Editor) -> None:
    for guidance, passes in ((5.0, 8), (1.0, 4)):
        planned = run(wan, guidance=guidance).planned
        assert planned is not None
        assert planned.plain == passes


def test_costs_of_stages_have_the_names_of_reports(wan: Editor, editor: Editor) -> None:
    request = EditRequest("a bear on the grass", "a panda on the grass", steps=4)
    for one, before in ((wan, "read"), (editor, "inversion")):
        costs = stage_costs(one, request)
        assert list(costs) == [before, "denoise"]
        assert min(costs.values()) > 0
    longer = stage_costs(editor, replace(request, steps=8))
    assert longer["denoise"] > stage_costs(editor, request)["denoise"]
