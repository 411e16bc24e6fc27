"""Figures of codebooks and word maps: their files, and the columns of a contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_codebook import CODEBOOK, SITES

from freemask.calibration.figures import WordMapSheet, draw_codebook, short_name, spread_entries
from freemask.types import Video, WordMaps


def test_the_figure_of_a_codebook_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw_codebook(CODEBOOK, tmp_path / f"{name}.json")
    for suffix in (".png", ".svg"):
        first, second = (tmp_path / f"{name}{suffix}" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
    assert "best timestep: 401" in (tmp_path / "a.svg").read_text()


def test_a_sheet_shows_the_cost_of_every_cell_that_it_draws(tmp_path: Path) -> None:
    maps = WordMaps({site: torch.rand(3, 2, *site.resolution) for site in SITES}, (1, 401, 801))
    video = Video(np.zeros((2, 12, 20, 3), dtype=np.uint8))
    sheet = WordMapSheet(video, maps, threshold=0.5, max_pool=False, codebook=CODEBOOK)
    sheet.save(tmp_path / "sheet")
    text = (tmp_path / "sheet.svg").read_text()
    assert [text.count(f">{cost:.3f}<") for cost in (0.5, 0.3, 0.6, 0.2, 0.1, 0.4)] == [
        1, 1, 1, 2, 2, 2
    ]  # fmt: skip
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > picture.height
        np.testing.assert_array_equal(sheet.picture(), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize(
    ("count", "wanted", "entries"),
    [
        (3, [1], [0, 1, 2]),
        (50, [], [0, 16, 33, 49]),
        (50, [7, 7], [0, 7, 16, 33, 49]),
        (50, [7, 8, 9], [0, 16, 33, 49]),  # too many for four columns
    ],
)
def test_columns_are_spread_over_the_run(count: int, wanted: list[int], entries: list[int]) -> None:
    assert spread_entries(count, wanted, 4) == entries


def test_sites_have_short_names_of_their_own() -> None:
    names = {
        "up_blocks.2.attentions.0.transformer_blocks.0.attn2": "up 2.0",
        "mid_block.attentions.0.transformer_blocks.0.attn2": "mid.0",
        "blocks.0.attn2": "block 0",
        "blocks.12.attn2": "block 12",
    }
    assert {site: short_name(site) for site in names} == names
