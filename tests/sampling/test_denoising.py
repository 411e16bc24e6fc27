"""Denoising on a tiny backbone: what masks, step ranges and stored features must give."""

from __future__ import annotations

import gc
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_edits import (
    BLEND,
    CLOSED,
    KINDS,
    OPEN,
    SOURCE,
    STEPS,
    TARGET,
    ask,
    close,
    edited_latents,
    half_mask,
    mask_of,
    rms,
    spied,
    stock_ddim,
)
from torch import Tensor

from freemask import kernels
from freemask.editors.editor import Editor
from freemask.types import Video


def test_sites_with_too_many_rows_take_nothing_from_the_source(
    editor: Editor, small: Video
) -> None:
    everywhere = CLOSED | {"fusion.self_replace": [0, 1], "fusion.masked": []}
    plain, _ = edited_latents(editor, small, ask(CLOSED))
    fused, _ = edited_latents(editor, small, ask(everywhere))
    none, _ = edited_latents(editor, small, ask(everywhere | {"fusion.max_rows": 1}))
    rows = sorted({math.prod(site.resolution) for site in editor.sites((8, 12))})
    some, _ = edited_latents(editor, small, ask(everywhere | {"fusion.max_rows": rows[0]}))
    torch.testing.assert_close(none, plain)
    assert not torch.allclose(fused, plain)
    assert not torch.allclose(some, plain)
    assert not torch.allclose(some, fused)


def test_an_all_one_mask_is_plain_guided_denoising(editor: Editor, small: Video) -> None:
    everywhere = mask_of(small, 1)
    fused, _ = edited_latents(editor, small, ask(OPEN), everywhere)
    plain, _ = edited_latents(editor, small, ask(CLOSED))
    assert close(fused, plain)
    for kind in KINDS:  # each of them would be noticed
        one = CLOSED | {f"fusion.{kind}": [0, 1]}
        source, _ = edited_latents(editor, small, ask(one), mask_of(small, 0))
        assert not close(source, plain), kind


def test_with_every_window_closed_an_edit_is_guided_ddim(editor: Editor, small: Video) -> None:
    found, inversion = edited_latents(editor, small, ask(CLOSED))
    assert close(found, stock_ddim(editor, small, inversion, TARGET, 5.0))


def test_identical_prompts_guidance_one_and_no_mask_give_the_reconstruction(
    editor: Editor, small: Video
) -> None:
    same = ask(CLOSED, target=SOURCE, guidance=1.0)
    found, inversion = edited_latents(editor, small, same)
    reconstruction = stock_ddim(editor, small, inversion, SOURCE, 1.0)
    assert close(found, reconstruction)
    everywhere = replace(same, overrides=OPEN | {"fusion.masked": []})
    from_source, _ = edited_latents(editor, small, everywhere)
    assert rms(from_source - reconstruction) < 0.2 * rms(reconstruction)
    other, _ = edited_latents(editor, small, ask(CLOSED))
    assert rms(other - reconstruction) > 0.5 * rms(reconstruction)


def test_unmasked_latent_blending_gives_back_the_source(editor: Editor, small: Video) -> None:
    request = ask(CLOSED | BLEND | {"fusion.masked": ["self", "cross"]})
    latents, inversion = edited_latents(editor, small, request)
    torch.testing.assert_close(latents, inversion.trajectory.latents[:1], rtol=0, atol=0)


def test_latents_outside_the_mask_are_the_sources(editor: Editor, small: Video) -> None:
    latents, inversion = edited_latents(editor, small, ask(OPEN | BLEND), half_mask(small))
    clip = inversion.trajectory.latents[:1]
    torch.testing.assert_close(latents[..., 4:], clip[..., 4:], rtol=0, atol=0)
    assert not close(latents[..., :3], clip[..., :3])


def test_the_source_as_negative_prompt_leaves_identical_prompts_unguided(
    editor: Editor, small: Video
) -> None:
    same = ask(CLOSED | {"negative_source": True}, target=SOURCE)
    guided, inversion = edited_latents(editor, small, same)
    assert close(guided, stock_ddim(editor, small, inversion, SOURCE, 1.0))


@pytest.mark.parametrize(("mode", "strength"), [("map", 1.0), ("qk", 1.0), ("map", 0.75)])
def test_stored_features_give_what_replayed_ones_give(
    editor: Editor, small: Video, mode: str, strength: float, tmp_path: Path
) -> None:
    halves = {f"fusion.{kind}": [0, 0.5] for kind in KINDS} | {"fusion.self_replace": [0.25, 1]}
    common = CLOSED | halves | {"fusion.temporal_mode": mode, "strength": strength}
    replayed, _ = edited_latents(editor, small, ask(common), half_mask(small))
    for folder in (None, tmp_path / "features"):
        stored = common | {"features": "store", "store_folder": folder and str(folder)}
        latents, inversion = edited_latents(editor, small, ask(stored), half_mask(small))
        torch.testing.assert_close(latents, replayed, rtol=1e-3, atol=1e-4)
        assert folder is None or list(folder.rglob("*.safetensors"))
        del inversion
    gc.collect()
    assert list((tmp_path / "features").iterdir()) == []


def test_the_source_runs_only_where_it_is_needed(
    editor: Editor, small: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = CLOSED | {"fusion.self_replace": [0, 0.5]}
    store = {"features": "store"}
    for overrides, guidance, expected in (
        (half, 5.0, [2, 1, 2, 1, 2, 2]),
        (half, 1.0, [2, 2, 1, 1]),
        (half | store, 5.0, [2, 2, 2, 2]),
    ):
        with spied(editor, monkeypatch) as sizes:
            edited_latents(editor, small, ask(overrides, guidance=guidance), mask_of(small, 0))
        assert sizes == [1] * (STEPS + 3) + expected


def test_the_part_size_of_attention_comes_from_the_editor(
    editor: Editor, small: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, original = set(), kernels.blended_attention

    def recorded(*arguments: Tensor, part_bytes: int | None, **keywords: Any) -> Tensor:
        given.add(part_bytes)
        return original(*arguments, part_bytes=part_bytes, **keywords)

    monkeypatch.setattr(kernels, "blended_attention", recorded)
    monkeypatch.setattr(editor, "attention_part_bytes", 1 << 10)
    edited_latents(editor, small, ask(OPEN), half_mask(small))
    assert given == {1 << 10}
