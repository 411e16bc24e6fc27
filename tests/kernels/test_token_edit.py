"""TokenEdit: value transforms equal the map edits of Prompt-to-Prompt, in float64."""

import pytest
import torch

from freemask.kernels import blended_attention
from freemask.kernels.dev.testing import Shape, blend_case
from freemask.kernels.reference import attention_map
from freemask.kernels.token_edit import TokenEdit

SOURCE_TOKENS, TARGET_TOKENS = 6, 7


def case_with_keys():
    shape = Shape(keys=TARGET_TOKENS, source_keys=SOURCE_TOKENS, queries=50)
    return blend_case(shape, torch.float64)


def edited_by_maps(case, mapper, alpha, weights, masked):
    """The definition: build both maps, edit them token by token, blend them by the mask."""
    edit = attention_map(case.q, case.k, 40**-0.5)
    source = attention_map(case.q_source, case.k_source, 40**-0.5)
    outside = (source @ mapper) * alpha + edit * (1 - alpha)
    gate = case.mask[:, None, :, None].double() * masked
    return ((gate * edit + (1 - gate) * outside) * weights) @ case.v


def edited_by_values(case, edit, progress, masked, backend):
    return blended_attention(
        case.q,
        case.k,
        q_source=case.q_source,
        k_source=case.k_source,
        mask=case.mask * masked,
        backend=backend,
        **edit.values(case.v, progress).arguments(),
    )


def replacement():
    """Word 2 is one source token and two target tokens; the other words match one to one."""
    mapper = torch.zeros(SOURCE_TOKENS, TARGET_TOKENS, dtype=torch.float64)
    for source, target in ((0, 0), (1, 1), (2, 2), (2, 3), (3, 4), (4, 5), (5, 6)):
        mapper[source, target] = 0.5 if source == 2 else 1.0
    return TokenEdit.replacement(mapper)


def refinement():
    """Tokens 2 and 5 of the target are new; the others match a source token each."""
    mapper = torch.zeros(SOURCE_TOKENS, TARGET_TOKENS, dtype=torch.float64)
    for source, target in ((0, 0), (1, 1), (2, 3), (3, 4), (5, 6)):
        mapper[source, target] = 1.0
    return TokenEdit.replacement(mapper)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("masked", [0.0, 1.0])
@pytest.mark.parametrize("make", [replacement, refinement])
def test_values_equal_the_maps(make, masked, backend):
    case, weights = case_with_keys(), torch.linspace(0.2, 4, TARGET_TOKENS).double()
    windows = torch.tensor([[0.0, 0.5]] * 5 + [[0.0, 0.2], [0.4, 1.0]])
    edit = make().reweighted(weights).windowed(windows)
    for progress in (0.0, 0.3, 0.7):
        alpha = edit.alpha(progress)
        expected = edited_by_maps(case, edit.mapper, alpha, weights, masked)
        out = edited_by_values(case, edit, progress, masked, backend)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)


def test_windows_open_at_start_and_close_before_end():
    edit = replacement().windowed(torch.tensor([0.25, 0.5]))
    assert [edit.alpha(p).unique().tolist() for p in (0.0, 0.25, 0.49, 0.5)] == [[0], [1], [1], [0]]


def test_new_tokens_keep_the_attention_of_the_edit_at_all_times():
    assert refinement().alpha(0.0).tolist() == [1, 1, 0, 1, 1, 0, 1]


def test_kept_values_are_left_out_when_no_token_keeps_its_attention():
    v = case_with_keys().v
    assert replacement().values(v).kept is None
    assert refinement().values(v).kept is not None


def test_weights_multiply_and_leave_the_original_alone():
    weights = torch.arange(1.0, 8.0)
    edit = replacement()
    assert edit.reweighted(weights).reweighted(weights).weights.tolist() == [
        1,
        4,
        9,
        16,
        25,
        36,
        49,
    ]
    assert edit.weights.tolist() == [1] * 7


def test_narrow_values_are_rounded_once():
    case = case_with_keys()
    edit = refinement().reweighted(torch.full((7,), 1 / 3))
    v = case.v.bfloat16()
    exact = edit.values(v.double())
    for narrow, wide in zip(vars(edit.values(v)).values(), vars(exact).values(), strict=True):
        assert narrow.dtype == torch.bfloat16
        assert torch.equal(narrow, wide.float().bfloat16())


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: TokenEdit.replacement(torch.zeros(3)), "non-negative matrix"),
        (lambda: TokenEdit.replacement(-torch.ones(2, 2)), "non-negative matrix"),
        (lambda: replacement().reweighted(torch.ones(3)), r"weights must be \(7,\)"),
        (lambda: replacement().windowed(torch.tensor([0.6, 0.5])), "start <= end"),
        (lambda: replacement().windowed(torch.ones(3, 2)), r"windows must be \(7, 2\)"),
        (lambda: replacement().values(torch.zeros(1, 1, 6, 8)), "the 7 target tokens"),
    ],
)
def test_errors_say_what_was_given_and_what_is_allowed(act, says):
    with pytest.raises(ValueError, match=says):
        act()


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_one_key_stands_for_all_padding(progress):
    """With equal keys and values from some token on, one key counted m times gives the result of
    all of them, whatever the edit does to single tokens of the padding."""
    generator = torch.Generator().manual_seed(1)
    mapper = torch.rand(8, 9, generator=generator, dtype=torch.float64)
    windows = torch.tensor([[0.0, 1.0]] * 4 + [[0.0, 0.4]] * 5)
    edit = TokenEdit.replacement(mapper).windowed(windows).reweighted(torch.linspace(0.2, 4, 9))
    shape = Shape(keys=9, source_keys=8, queries=50)
    case = blend_case(shape, torch.float64)
    short = {"source": 3, "target": 5}
    for x, count in ((case.k, 5), (case.v, 5), (case.k_source, 3)):
        x[:, :, count:] = x[:, :, count - 1 : count]
    maps = [
        attention_map(case.q, case.k, 40**-0.5),
        attention_map(case.q_source, case.k_source, 40**-0.5),
    ]
    folded = [
        torch.cat([m[..., : n - 1], m[..., n - 1 :].sum(-1, keepdim=True)], -1)
        for m, n in zip(maps, (5, 3), strict=True)
    ]
    found = edit.at(progress, **short).values(case.v[:, :, :5])
    expected = edit.values(case.v, progress)
    pairs = [("edit", 0), ("source", 1), *([("kept", 0)] if progress else [])]
    assert (expected.kept is None) == (progress == 0)
    for name, which in pairs:
        torch.testing.assert_close(
            folded[which] @ getattr(found, name), maps[which] @ getattr(expected, name)
        )


def test_folded_factors_take_values_of_the_keys_that_there_are():
    edit = replacement().at(0.0, source=3, target=4)
    assert (edit.source.shape, edit.edit.shape) == ((3, 4), (4,))
    with pytest.raises(ValueError, match="with the 4 target tokens"):
        edit.values(torch.zeros(1, 1, 7, 2))
