"""One clip on several processes: the same latents, to rounding, as on one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from freemask.attention.ranks import Ranks
from freemask.editors import load_editor
from freemask.pipeline import edit
from freemask.sampling.inversion import invert
from freemask.types import EditRequest, InputError, Video

SIZE = (32, 48)
FUSED = {"fusion.self_replace": [0, 1], "fusion.cross_replace": [0, 1]}
EDITS: dict[str, dict[str, Any]] = {
    "all": {"fusion.rows": "all", **FUSED},
    "inside": {"fusion.rows": "inside", **FUSED},
    "kept": {"fusion.rows": "inside", "fusion.source_every": 2, **FUSED},
    "own": {"fusion.rows": "inside", "fusion.outside": "own", "fusion.source_every": 2, **FUSED},
    "pinned": {"flow.state": "pinned", "fusion.rows": "inside"},
}


def clip() -> Video:
    frames = np.random.default_rng(0).integers(0, 256, (9, *SIZE, 3), dtype=np.uint8)
    return Video(frames)


def results(checkpoint: Path, ranks: Ranks) -> dict[str, Tensor]:
    """Returns the edited frames of each of EDITS, and the word maps of an inversion."""
    editor = load_editor("wan", checkpoint=checkpoint, device="cpu")
    editor.share(ranks)
    mask = torch.zeros(9, *SIZE)
    mask[:, 8:24, 16:40] = 1
    last: dict[str, Tensor] = {}
    for name, overrides in EDITS.items():

        def keep(
            editor: Any, step: int, timestep: float, found: dict[str, Tensor]
        ) -> dict[str, Tensor]:
            last[name] = found["latents"]  # noqa: B023
            return {}

        request = EditRequest(
            "a bear on the grass", "a panda on the grass", words=("bear", "panda"), steps=3,
            guidance=5.0, overrides={"fusion.margin": 0.0, **overrides},
        )  # fmt: skip
        edit(editor, clip(), request, mask=mask, callback_on_step_end=keep)
    inversion = invert(editor, clip(), "a bear on the grass", words="bear", steps=2)
    maps = inversion.word_maps["source"].maps
    return last | {f"map of {site.name}": stacked for site, stacked in maps.items()}


def work(rank: int, count: int, checkpoint: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
    torch.save(results(checkpoint, Ranks(rank, count)), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_that_share_a_clip_agree_with_one(
    count: int, wan_checkpoint: Path, tmp_path: Path
) -> None:
    alone = results(wan_checkpoint, Ranks())
    mp.spawn(work, (count, wan_checkpoint, tmp_path), nprocs=count)
    for rank in range(count):
        shared = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert shared.keys() == alone.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(shared[name], expected, rtol=2e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("sections", [(7,), (4, 3), (0, 7), (6, 1)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_are_balanced_and_complete(count: int, sections: Sequence[int]) -> None:
    tokens = torch.arange(7)
    shares = [Ranks(rank, count).own(tokens, sections) for rank in range(count)]
    assert sorted(torch.cat(shares).tolist()) == list(range(7))
    for rank, share in enumerate(shares):
        assert len(share) == sum(Ranks(rank, count).size(section) for section in sections)
    start = 0
    for section in sections:
        counts = [sum(start <= token < start + section for token in s.tolist()) for s in shares]
        assert max(counts) - min(counts) <= 1
        start += section


def test_an_editor_that_computes_whole_clips_is_not_shared(checkpoint: Path) -> None:
    editor = load_editor("zeroscope", checkpoint=checkpoint, device="cpu")
    with pytest.raises(InputError, match="zeroscope computes whole clips, not tokens"):
        editor.share(Ranks(0, 2))
