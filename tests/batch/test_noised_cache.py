"""The inversion cache of a flow model: a noised source is free, its word maps are read once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from freemask.attention.lanes import Lane
from freemask.batch.inversion_cache import InversionCache
from freemask.editors.editor import Editor
from freemask.prepare import PreparedEdit, prepare
from freemask.types import EditRequest, Video

STEPS = 5


def prepared_for(wan: Editor, video: Video, seed: int = 0, **overrides: object) -> PreparedEdit:
    request = EditRequest(
        "a bear on the grass",
        "a panda on the grass",
        words=("bear", "panda"),
        steps=STEPS,
        seed=seed,
        overrides={
            "mask.policy": "time_agnostic",
            "mask.sites": "released",
            "mask.words": "source",
            **overrides,
        },
    )
    return prepare(wan, video, request)


@pytest.fixture
def clip5(video: Video) -> Video:
    """Five frames: two latent frames."""
    return Video(np.concatenate([video.frames, video.frames[:1]]))


@pytest.fixture
def calls(wan: Editor, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The timesteps that the backbone is called with."""
    found: list[float] = []
    predict = wan.predict_lanes

    def counted(lanes: Sequence[Lane], timestep: float) -> list[torch.Tensor]:
        found.append(timestep)
        return predict(lanes, timestep)

    monkeypatch.setattr(wan, "predict_lanes", counted)
    return found


def test_only_the_cells_of_the_mask_are_read_and_kept(
    wan: Editor, clip5: Video, calls: list[float], tmp_path: Path
) -> None:
    cache = InversionCache(tmp_path / "inversions")
    prepared = prepared_for(wan, clip5)
    assert prepared.selection
    wanted = [prepared.timesteps[entry] for entry in prepared.selection.entries]
    first = cache.invert(wan, clip5, prepared)
    assert calls == wanted
    assert first.word_maps["source"].timesteps == tuple(wanted)
    again = cache.invert(wan, clip5, prepared)
    assert calls == wanted
    assert again.word_maps["source"].timesteps == tuple(wanted)
    for site, maps in first.word_maps["source"].maps.items():
        torch.testing.assert_close(again.word_maps["source"].maps[site], maps, rtol=0, atol=0)
    torch.testing.assert_close(again.trajectory.latents, first.trajectory.latents, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("seed", "overrides"),
    [(1, {}), (0, {"flow.noise": "shared"}), (0, {"mask.policy": "naive"})],
)
def test_another_noise_or_other_cells_are_another_entry(
    seed: int,
    overrides: dict[str, object],
    wan: Editor,
    clip5: Video,
    calls: list[float],
    tmp_path: Path,
) -> None:
    cache = InversionCache(tmp_path / "inversions")
    cache.invert(wan, clip5, prepared_for(wan, clip5))
    calls.clear()
    cache.invert(wan, clip5, prepared_for(wan, clip5, seed, **overrides))
    assert calls


def test_stored_features_are_read_where_the_edit_fuses(
    wan: Editor, clip5: Video, calls: list[float], tmp_path: Path
) -> None:
    stored = prepared_for(
        wan, clip5, **{"features": "store", "strength": 0.6, "flow.state": "pinned"}
    )
    cache = InversionCache(tmp_path / "inversions")
    inversion = cache.invert(wan, clip5, stored)
    assert inversion.features is not None
    assert len(calls) == len(set(calls)) == len(stored.entries) < STEPS
