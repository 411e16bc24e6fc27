"""The table of other maps: what each kind of map is, and how the clips are measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from freemask import kernels
from freemask.attention.hooks import AttentionCall
from freemask.editors.editor import Editor
from freemask.sampling.inversion import invert
from freemask.types import Site
from tools.sprites.map_candidates import (
    PLAIN,
    average,
    candidate_maps,
    measure,
    recorded,
    report,
)

WORDS = torch.tensor([[0.0, 1, 1, 0, 0], [0, 0, 0, 1, 0]])


def call_with(q: Tensor, k: Tensor, v: Tensor) -> AttentionCall:
    return AttentionCall(Site("blocks.0.attn2", "cross", 0, (2, 3), "clip"), None, q, k, v)  # type: ignore[arg-type]


def test_the_word_map_is_the_kernels(rng: torch.Generator) -> None:
    q, k, v = (torch.randn(1, 2, n, 4, generator=rng) for n in (6, 5, 5))
    maps = candidate_maps(call_with(q, k, v), WORDS, 0)
    _, expected = kernels.word_attention(q, k, v, word_weights=WORDS[0])
    torch.testing.assert_close(maps[PLAIN], expected)
    assert all(found.shape == (1, 6) for found in maps.values())


def test_other_maps_compare_the_words_with_one_another(rng: torch.Generator) -> None:
    q, k, v = (torch.randn(1, 2, n, 4, generator=rng) for n in (6, 5, 5))
    both = [candidate_maps(call_with(q, k, v), WORDS, wanted) for wanted in (0, 1)]
    for name in set(both[0]) - {PLAIN}:
        torch.testing.assert_close(both[0][name] + both[1][name], torch.ones(1, 6))
    v = torch.zeros(1, 1, 5, 4)
    v[..., 3, 0] = 10.0  # what sees the second word has its value
    k = torch.zeros(1, 1, 5, 4)
    k[..., 3, 1] = 10.0
    q = torch.zeros(1, 1, 6, 4)
    q[:, :, :3, 1] = 10.0
    maps = candidate_maps(call_with(q, k, v), WORDS, 1)
    for name, found in maps.items():
        assert found[0, :3].min() > found[0, 3:].max(), name


def test_clips_are_measured_with_every_kind_of_map(editor: Editor) -> None:
    by_kind = measure(editor, 2, 3)
    assert all(len(clips) == 2 for clips in by_kind.values())
    clip = by_kind[PLAIN][0].clip
    maps = invert(editor, clip.video, clip.prompt, words=clip.word, steps=3).word_maps["source"]
    found = by_kind[PLAIN][0].maps
    assert found.timesteps == maps.timesteps
    for site, expected in maps.maps.items():
        torch.testing.assert_close(found.maps[site], expected, rtol=1e-4, atol=1e-5)
    lines = report(editor, by_kind)
    assert [line.split("  ")[-1] for line in lines] == list(by_kind)
    assert "by +0.000 [+0.000, +0.000]" in lines[0]


def test_several_noises_are_averaged(wan: Editor) -> None:
    by_kind = measure(wan, 1, 2)
    assert {f"{PLAIN}, 2 noises", f"{PLAIN}, 4 noises"} <= set(by_kind)
    clip = by_kind[PLAIN][0].clip
    draws = [recorded(wan, clip, 2, seed)[PLAIN] for seed in range(2)]
    site = next(iter(draws[0].maps))
    assert not np.allclose(draws[0].maps[site], draws[1].maps[site])
    expected = (draws[0].maps[site] + draws[1].maps[site]) / 2
    torch.testing.assert_close(average(draws).maps[site], expected)
    found = by_kind[f"{PLAIN}, 2 noises"][0].maps.maps[site]
    torch.testing.assert_close(found, expected)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)
