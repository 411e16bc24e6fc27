"""The table of masks without labels: ranks, and codebooks of the clips that are not masked."""

from __future__ import annotations

import numpy as np
import pytest

from freemask.editors.editor import Editor
from tools.sprites import agreement
from tools.sprites.agreement import (
    MASKS,
    codebook_of,
    mask_score,
    mask_scores,
    measure,
    rank_correlation,
    report,
)


def test_ranks_correlate_whatever_the_values() -> None:
    a = np.array([0.1, 0.2, 0.9, 5.0])
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, np.array([2.0, 1.0, 3.0, 4.0])) == pytest.approx(0.8)


def test_the_table_masks_each_half_with_the_codebook_of_the_other(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = measure(editor, 2, 4)
    for clip in clips:
        assert not np.array_equal(clip.costs["true"].costs, clip.costs["unlabelled"].costs)
    seen = []
    monkeypatch.setattr(
        agreement,
        "codebook_of",
        lambda others, kind: seen.append(others) or codebook_of(others, kind),
    )
    lines = report(editor, clips)
    assert clips[1:] in seen
    assert clips[:1] in seen
    assert lines[0].startswith(f"rank correlation of {len(clips[0].maps.maps)} sites: ")
    assert [line.split("  ")[-1] for line in lines[1:]] == list(MASKS)
    assert "consensus ahead by +0.000 [+0.000, +0.000]  consensus" in lines[1]
    scores = mask_scores(editor, clips[:1], clips[1:])
    settings, kind = MASKS["codebook"]
    expected = mask_score(editor, clips[0], settings, codebook_of(clips[1:], kind))
    assert scores["codebook"] == [expected]
