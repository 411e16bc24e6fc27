"""Fusion against its definition by explicit maps, in float64 on random tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fusion_calls import (
    ALWAYS,
    CELLS,
    DIM,
    FRAMES,
    SIZE,
    STEPS,
    TOKENS,
    attention_map,
    edited,
    explicit,
    make_call,
    make_fusion,
    make_tokens,
    parts,
    run,
    same_tokens,
    soft_mask,
)

from freemask.attention.features import FeatureStore
from freemask.attention.fusion import (
    FUSION_RULES,
    in_range,
    needs_mask,
    steps_reading_source,
)
from freemask.attention.hooks import AttentionCall, plain
from freemask.attention.token_grid import mask_rows
from freemask.kernels.token_edit import TokenEdit
from freemask.settings.presets import load_settings
from freemask.settings.sections import FusionSettings, Settings
from freemask.types import Site, SiteKind


@pytest.mark.parametrize("kind", ["self", "cross", "temporal"])
def test_fused_attention_is_the_blend_of_the_two_maps(kind: SiteKind) -> None:
    tokens, call, mask = make_tokens(), make_call(kind, 3), soft_mask()
    fusion = make_fusion(mask, tokens)
    for step in range(STEPS):
        fusion.at(step)
        expected = explicit(call, mask, tokens, step / STEPS)
        torch.testing.assert_close(edited(fusion, call), expected)


@pytest.mark.parametrize("kind", ["self", "cross", "temporal"])
def test_only_the_edits_branch_is_touched(kind: SiteKind) -> None:
    call = make_call(kind, 3)
    fusion = make_fusion(tokens=make_tokens())
    for open_windows in (ALWAYS, [0.0, 0.0]):
        fusion.settings.self_replace = fusion.settings.temporal_replace = open_windows
        found = run(fusion, call)
        own = dict(zip(("source", "unconditional", "edit"), parts(call), strict=True))
        assert torch.equal(found["unconditional"], plain(own["unconditional"]))
        assert "source" not in found or torch.equal(found["source"], plain(own["source"]))


def test_row_f_of_pixel_p_is_gated_by_frame_f_at_pixel_p() -> None:
    call, mask = make_call("temporal", 3), torch.zeros(FRAMES, *SIZE)
    mask[1, 2, 3] = 1
    source, _, edit = parts(call)
    expected = attention_map(source) @ edit.v
    pixel = 2 * SIZE[1] + 3
    expected[pixel, :, 1] = (attention_map(edit) @ edit.v)[pixel, :, 1]
    torch.testing.assert_close(edited(make_fusion(mask), call), expected)


def test_qk_mode_mixes_queries_and_keys_row_by_row() -> None:
    call, mask = make_call("temporal", 3), soft_mask()
    source, _, edit = parts(call)
    rows = mask.flatten(1).double().T[:, None, :, None]
    q, k = (
        rows * ours + (1 - rows) * theirs
        for ours, theirs in ((edit.q, source.q), (edit.k, source.k))
    )
    mixed = AttentionCall(call.site, edit.project_text, q, k, edit.v)
    torch.testing.assert_close(
        edited(make_fusion(mask, temporal_mode="qk"), call), attention_map(mixed) @ edit.v
    )


@pytest.mark.parametrize("mode", ["map", "qk"])
def test_invert_temporal_is_the_complement_for_temporal_attention_alone(mode: str) -> None:
    mask = soft_mask()
    for kind in ("self", "cross", "temporal"):
        call = make_call(kind, 3)  # type: ignore[arg-type]
        inverted = make_fusion(mask, temporal_mode=mode, invert_temporal=True)
        same = make_fusion(1 - mask if kind == "temporal" else mask, temporal_mode=mode)
        torch.testing.assert_close(edited(inverted, call), edited(same, call), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["self", "cross", "temporal"])
def test_a_kind_that_is_not_masked_takes_the_source_everywhere(kind: SiteKind) -> None:
    call, tokens = make_call(kind, 3), make_tokens()
    others = [other for other in ("self", "cross", "temporal") if other != kind]
    fusion = make_fusion(soft_mask(), tokens, masked=others, invert_temporal=True)
    nowhere = torch.zeros(FRAMES, *SIZE)
    torch.testing.assert_close(edited(fusion, call), explicit(call, nowhere, tokens))


@pytest.mark.parametrize("kind", ["self", "cross", "temporal"])
def test_an_all_one_mask_is_plain_attention(kind: SiteKind) -> None:
    call, mask = make_call(kind, 3), torch.ones(FRAMES, *SIZE)
    torch.testing.assert_close(edited(make_fusion(mask), call), plain(parts(call)[2]))


def test_words_are_weighted_outside_their_step_ranges_too() -> None:
    call = make_call("cross", 2)
    tokens = make_tokens().windowed(torch.zeros(2))
    fusion = make_fusion(tokens=tokens, self_replace=[0, 0], temporal_replace=[0, 0])
    assert fusion.passes == (("unconditional", "edit"),)
    edit = parts(call, 2)[1]
    expected = attention_map(edit) * tokens.weights @ edit.v
    found = run(fusion, call)
    torch.testing.assert_close(found["edit"], expected)
    assert torch.equal(found["unconditional"], plain(call)[:FRAMES])


def test_the_batches_hold_the_branches_that_a_step_needs_and_never_three() -> None:
    half = {"self_replace": [0, 0], "temporal_replace": [0.25, 0.5]}
    never = same_tokens().windowed(torch.zeros(2))
    replayed = make_fusion(tokens=never, **half)
    found = [(replayed.at(step), replayed.passes)[1] for step in range(STEPS)]
    without = (("unconditional", "edit"),)
    assert found == [without, (("source", "edit"), ("unconditional",)), without, without]
    assert make_fusion(guided=False).passes == (("source", "edit"),)
    assert make_fusion(store=FeatureStore(lambda *_: True)).passes == without


@pytest.mark.parametrize("kind", ["self", "cross", "temporal"])
def test_source_features_serve_for_several_steps(kind: SiteKind) -> None:
    mask, tokens = soft_mask(), same_tokens()
    fusion = make_fusion(mask, tokens, source_every=2)
    first, second = make_call(kind, 3), make_call(kind, 2, seed=50)
    fusion.at(0)
    run(fusion, first)
    fusion.at(1)
    assert fusion.passes == (("unconditional", "edit"),)
    found = edited(fusion, second)
    size = len(first.q) // 3
    source = {x: getattr(first, x)[:size] for x in ("q", "k", "v")}
    both = {x: torch.cat([source[x], getattr(second, x)]) for x in source}
    expected = explicit(replace(second, **both), mask, tokens)
    torch.testing.assert_close(found, expected)
    fusion.at(2)
    assert fusion.passes == (("source", "edit"), ("unconditional",))


def test_features_of_a_window_that_opens_later_are_kept_for_it() -> None:
    fusion = make_fusion(source_every=4, cross_replace=[0, 0.25], self_replace=[0.5, 1])
    call = make_call("self", 3)
    fusion.at(0)
    run(fusion, call)
    fusion.at(2)
    assert fusion.passes == (("unconditional", "edit"),)
    edited(fusion, make_call("self", 2, seed=50))


def test_step_ranges_are_half_open_and_meet_without_a_gap() -> None:
    assert [in_range([0.25, 0.5], step, 4) for step in range(4)] == [False, True, False, False]
    for steps in (1, 7, 50):
        assert all(in_range(ALWAYS, step, steps) for step in range(steps))
        assert not any(in_range([0.3, 0.3], step, steps) for step in range(steps))
        for cut in (0.1, 0.3, 0.7):
            before, after = (
                [in_range(w, step, steps) for step in range(steps)]
                for w in ([0.0, cut], [cut, 1.0])
            )
            assert all(a != b for a, b in zip(before, after, strict=True))


def test_every_step_has_the_mask_of_its_own() -> None:
    call = make_call("self", 3)
    masks = torch.stack([soft_mask(seed) for seed in range(STEPS)])
    fusion = make_fusion(masks)
    for step in (0, 2, 3, 1):
        fusion.at(step)
        torch.testing.assert_close(edited(fusion, call), explicit(call, masks[step], same_tokens()))


def test_a_cell_is_edited_by_its_share_of_masked_pixels() -> None:
    mask = torch.zeros(2, 4, 6)
    mask[0, :2, :1] = 1
    mask[1, 2:, 4:] = 1
    site = Site("x", "self", 1, (2, 3))
    expected = torch.tensor([[0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
    torch.testing.assert_close(mask_rows(mask, site), expected)
    temporal = Site("x", "temporal", 1, (2, 3), "pixel")
    torch.testing.assert_close(mask_rows(mask, temporal), expected.T)
    odd = mask_rows(torch.ones(2, 9, 13), Site("x", "self", 1, (5, 7)))
    torch.testing.assert_close(odd, torch.ones(2, 35))


@pytest.mark.parametrize("kind", list(FUSION_RULES))
def test_the_steps_that_read_the_source_are_those_of_the_run(kind: SiteKind) -> None:
    site = Site("x", kind, 0, SIZE)
    key = {"self": "self_replace", "cross": "cross_replace", "temporal": "temporal_replace"}[kind]
    fusion = FusionSettings(**{key: [0.2, 0.8]})
    assert steps_reading_source(site, Settings(fusion=fusion), 10) == [2, 3, 4, 5, 6, 7]
    later = Settings(fusion=fusion, strength=0.5)  # the first five steps stay the source's
    assert steps_reading_source(site, later, 10) == [5, 6, 7]


def test_sites_with_too_many_rows_read_nothing() -> None:
    settings = Settings(fusion=FusionSettings(max_rows=CELLS - 1, self_replace=ALWAYS))
    assert steps_reading_source(Site("x", "self", 0, SIZE), settings, 4) == []
    assert steps_reading_source(Site("x", "temporal", 0, SIZE), settings, 4) == [0, 1, 2, 3]


def test_a_mask_is_needed_when_a_gated_kind_is_active_in_the_run() -> None:
    assert needs_mask(load_settings("shape"))
    assert not needs_mask(load_settings("style"))
    early = FusionSettings([0, 0], [0, 0.3], [0, 0], masked=["self"], latent_blend=[0, 0])
    assert needs_mask(Settings(fusion=early))
    assert not needs_mask(Settings(fusion=early, strength=0.6))


def test_a_new_word_alone_in_its_step_range_reads_nothing() -> None:
    mapper = torch.eye(TOKENS)
    mapper[:, 2] = 0
    ranges = torch.zeros(TOKENS, 2)
    ranges[2] = torch.tensor(ALWAYS)
    fusion = make_fusion(
        tokens=TokenEdit.replacement(mapper).windowed(ranges),
        self_replace=[0, 0],
        temporal_replace=[0, 0],
    )
    assert fusion.passes == (("unconditional", "edit"),)


def test_erasing_shows_the_rows_inside_what_lies_outside_alone() -> None:
    mask = (soft_mask() > 0.5).float()
    fusion = make_fusion(mask, erase=[0.0, 0.5], self_replace=[0.0, 0.0], guided=False)
    call = make_call("self", branches=2)
    fusion.at(0)
    assert fusion.fuses(call.site)
    fusion.enter(("source", "edit"))
    out = fusion(call)[FRAMES:]
    rows = mask_rows(mask, call.site) > 0
    q, k, v = (x[FRAMES:] for x in (call.q, call.k, call.v))
    q_source, k_source = call.q[:FRAMES], call.k[:FRAMES]
    for frame in range(FRAMES):
        inside, outside = rows[frame], ~rows[frame]
        seen = (q[frame] @ k[frame][:, outside].transpose(-1, -2)) * DIM**-0.5
        expected = seen.softmax(-1) @ v[frame][:, outside]
        torch.testing.assert_close(out[frame][:, inside], expected[:, inside])
        seen = (q_source[frame] @ k_source[frame].transpose(-1, -2)) * DIM**-0.5
        expected = seen.softmax(-1) @ v[frame]
        torch.testing.assert_close(out[frame][:, outside], expected[:, outside])
    fusion.at(STEPS // 2)
    assert not fusion.fuses(call.site)
