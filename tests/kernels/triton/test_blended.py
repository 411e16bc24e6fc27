"""The Triton kernel of blended attention against the reference, and its properties."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freemask.kernels import blended_attention
from freemask.kernels.calls import BlendedCall
from freemask.kernels.dev.testing import (
    MASKS,
    Sample,
    Shape,
    assert_within_budget,
    blend_case,
    with_outside,
)
from freemask.kernels.mask_plan import MaskPlan
from freemask.kernels.triton import blended

interpreter_of_triton = pytest.importorskip("triton.runtime.interpreter")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def check(case: Sample, device: str) -> None:
    assert_within_budget(case.to(device), "triton")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("queries", [1, 37, 130])
def test_masks_and_odd_lengths_stay_within_the_error_budget(queries, mask, dtype, device):
    shape = Shape(batch=2, heads=1, queries=queries, keys=77, source_keys=7, dim=40)
    check(blend_case(shape, dtype, mask=mask), device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [8, 16, 24, 40, 64, 72, 80, 96, 120, 128, 160, 192, 256])
def test_every_head_dimension_stays_within_the_error_budget(dim, dtype, device):
    check(
        blend_case(Shape(batch=1, heads=2, queries=37, keys=41, source_keys=64, dim=dim), dtype),
        device,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("keys", [1, 7, 77, 130])
def test_key_lengths_differ_between_edit_and_source(keys, dtype, device):
    check(
        blend_case(Shape(batch=1, queries=33, keys=keys, source_keys=131 - keys, dim=40), dtype),
        device,
    )


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_shape_mask_table_and_kept_values(device, data):
    size = st.integers(1, 70)
    shape = Shape(
        batch=data.draw(st.integers(1, 3)),
        heads=data.draw(st.integers(1, 2)),
        queries=data.draw(size),
        keys=data.draw(size),
        source_keys=data.draw(size),
        dim=data.draw(st.sampled_from([8, 40, 80])),
    )
    dtype = data.draw(st.sampled_from(DTYPES))
    case = blend_case(shape, dtype, mask=data.draw(st.sampled_from(list(MASKS))))
    if data.draw(st.booleans()):
        case = replace(case, v_kept=case.v.flip(2))
    if data.draw(st.booleans()):
        frames = torch.randint(0, shape.batch, (shape.batch, data.draw(st.integers(1, 3))))
        case = replace(case, frame_table=frames)
    check(case, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("keys", "outside"), [(64, 64), (37, 130), (5, 1)])
def test_keys_outside_stay_within_the_error_budget(keys, outside, mask, dtype, device):
    shape = Shape(batch=2, heads=2, queries=37, keys=keys, source_keys=keys, dim=40)
    check(with_outside(blend_case(shape, dtype, mask=mask), outside), device)


@pytest.mark.parametrize("dim", [8, 64, 128, 160])
def test_keys_outside_at_every_slice_of_the_head_dimension(dim, device):
    case = blend_case(Shape(batch=1, heads=2, queries=20, keys=20, source_keys=20, dim=dim))
    check(with_outside(case, 41), device)


def rows(case: Sample) -> torch.Tensor:
    """Returns the output as `(B, N, H, D)`, to be indexed by a mask `(B, N)`."""
    return case.run("triton").transpose(1, 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_binary_rows_are_bit_identical_to_plain_attention(dtype, device):
    case = blend_case(Shape(queries=100, keys=77, source_keys=50), dtype).to(device)
    plain = replace(case, mask=torch.ones_like(case.mask))
    swapped = {"q": case.q_source, "k": case.k_source, "v": case.v_source}
    out, inside, outside = rows(case), case.mask == 1, case.mask == 0
    assert torch.equal(out[inside], rows(plain)[inside])
    assert torch.equal(out[outside], rows(replace(plain, **swapped))[outside])


def test_a_binary_row_never_sees_the_branch_it_does_not_need(device):
    case = blend_case(Shape(queries=100)).to(device)
    nan, clean = torch.full_like(case.q, float("nan")), rows(case)
    for name, unaffected in (("q", case.mask == 0), ("q_source", case.mask == 1)):
        out = rows(replace(case, **{name: nan}))
        assert torch.equal(out[unaffected], clean[unaffected])
        assert out[~unaffected].isnan().all()


def test_two_runs_agree_bit_by_bit(device):
    case = blend_case(Shape(queries=100)).to(device)
    assert torch.equal(case.run("triton"), case.run("triton"))


def strided(x: torch.Tensor, layout: str) -> torch.Tensor:
    """Returns the values of `x (B, H, N, D)` in another memory layout."""
    if layout == "heads last":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "part of a fused projection":  # of q, k and v: row stride 3 H D
        return torch.stack([x, x, x]).permute(1, 3, 0, 2, 4).contiguous()[:, :, 1].transpose(1, 2)
    if layout == "odd stride":  # no stride is a multiple of 8
        return torch.nn.functional.pad(x, (0, 3))[..., : x.shape[3]]
    return x.transpose(2, 3).contiguous().transpose(2, 3)  # "last axis not dense"


@pytest.mark.parametrize(
    "layout", ["heads last", "part of a fused projection", "odd stride", "last axis not dense"]
)
def test_strides_are_honoured(layout, device):
    case = blend_case(Shape(queries=70, keys=33, source_keys=20)).to(device)
    tensors = {
        n: strided(x, layout) for n, x in vars(case).items() if x is not None and x.ndim == 4
    }
    assert all(not x.is_contiguous() for x in tensors.values())
    assert torch.equal(replace(case, **tensors).run("triton"), case.run("triton"))


def test_expanded_tensors_give_the_result_of_their_copies(device):
    case = blend_case(Shape(batch=3, queries=70)).to(device)
    shared = {"k": case.k[:1].expand(3, -1, -1, -1), "q": case.q[:, :1].expand(-1, 2, -1, -1)}
    copied = {name: x.contiguous() for name, x in shared.items()}
    assert torch.equal(replace(case, **shared).run("triton"), replace(case, **copied).run("triton"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [40, 72, 120])
def test_every_element_is_written_and_nothing_outside(dim, dtype, device, check_writes):
    case = blend_case(Shape(queries=37, keys=20, source_keys=20, dim=dim), dtype).to(device)
    plan = MaskPlan.from_mask(case.mask)
    branches = (case.q, case.k, case.v, case.q_source, case.k_source, case.v_source)
    rows = (plan.mask, plan.order, plan.counts)
    blended.launch(BlendedCall(*branches, None, *rows, None, 0.2))
    check_writes()


def test_more_than_65535_sequences(device, monkeypatch):
    sequences = 65_537
    run = range(sequences) if device == "cuda" else [0, 1, sequences - 2, sequences - 1]

    def only_some_programs(*bounds):  # of the grid; a GPU runs them all
        return run if bounds == (sequences,) else range(*bounds)

    monkeypatch.setattr(interpreter_of_triton, "range", only_some_programs, raising=False)
    x = torch.randn(sequences, 1, 2, 8).to(device)
    mask = torch.tensor([1.0, 0.0]).to(device).expand(sequences, 2)
    sources = {"q_source": x.flip(2), "k_source": x}
    out = blended_attention(x, x, x, **sources, mask=mask, backend="triton")
    expected = blended_attention(x, x, x, **sources, mask=mask, backend="torch")
    torch.testing.assert_close(out[run], expected[run])
