"""Blended attention of the torch backend against the reference, and the properties of the blend."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from freemask.kernels import blended_attention
from freemask.kernels.calls import OUTSIDE
from freemask.kernels.dev.testing import (
    MASKS,
    Shape,
    assert_within_budget,
    blend_case,
    with_outside,
)
from freemask.kernels.dev.timing import peak_bytes
from freemask.kernels.error_budget import BAND
from freemask.kernels.mask_plan import MaskPlan

BACKENDS = ["torch", "reference"]


@pytest.mark.parametrize("dtype", BAND, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("queries", [1, 7, 37, 77, 130])
def test_masks_and_odd_lengths_stay_within_the_error_budget(queries, mask, dtype):
    shape = Shape(queries=queries, keys=77, source_keys=41, dim=40)
    assert_within_budget(blend_case(shape, dtype, mask=mask), "torch")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_shape_mask_and_table_stay_within_the_error_budget(data):
    size = st.integers(1, 100)
    keys = data.draw(size)
    shape = Shape(
        batch=data.draw(st.integers(1, 3)),
        heads=data.draw(st.integers(1, 3)),
        queries=data.draw(size),
        keys=keys,
        source_keys=data.draw(size),
        dim=data.draw(st.sampled_from([1, 8, 40, 80])),
    )
    case = blend_case(shape, mask=data.draw(st.sampled_from(list(MASKS))), seed=data.draw(size))
    if data.draw(st.booleans()):
        assert_within_budget(with_outside(case, data.draw(size)), "torch")
    if data.draw(st.booleans()):
        case = replace(case, v_kept=case.v.flip(2))
    if data.draw(st.booleans()):
        frames = torch.randint(0, shape.batch, (shape.batch, data.draw(st.integers(1, 3))))
        case = replace(case, frame_table=frames)
    assert_within_budget(case, "torch")


@pytest.mark.parametrize("dtype", BAND, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("queries", "outside"), [(7, 1), (130, 77), (600, 900)])
def test_keys_outside_stay_within_the_error_budget(queries, outside, mask, dtype):
    case = blend_case(Shape(queries=queries, keys=queries, source_keys=queries), dtype, mask=mask)
    assert_within_budget(with_outside(case, outside), "torch")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("queries", [8, 600])
def test_keys_outside_equal_joined_keys(backend, queries):
    case = with_outside(blend_case(Shape(queries=queries), torch.float64), 50)
    outside = {name: getattr(case, name) for name in OUTSIDE}
    before = {"k": "k_outside", "v": "v_outside"}
    before |= {"k_source": "k_source_outside", "v_source": "v_outside"}
    joined = {
        name: torch.cat([outside[other], getattr(case, name)], dim=2)
        for name, other in before.items()
    }
    expected = replace(case, **joined, **dict.fromkeys(OUTSIDE)).run(backend)
    torch.testing.assert_close(case.run(backend), expected)
    same_keys = replace(case, k_source_outside=case.k_outside)
    assert torch.equal(replace(case, k_source_outside=None).run(backend), same_keys.run(backend))


def test_keys_outside_are_not_copied():
    case = with_outside(blend_case(Shape(batch=1, heads=4, queries=64, keys=64, dim=64)), 20_000)
    ones = MaskPlan.from_mask(torch.ones(1, 64))
    arguments = {name: getattr(case, name) for name in ("q_source", "k_source", *OUTSIDE)}
    call = partial(blended_attention, case.q, case.k, case.v, mask=ones, **arguments)
    assert peak_bytes(call, "cpu") < case.k_outside.nbytes / 4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("queries", [8, 130])
def test_all_ones_is_the_edit_and_all_zeros_the_source(backend, queries):
    case = blend_case(Shape(queries=queries), torch.float64)
    edit = scaled_dot_product_attention(case.q, case.k, case.v)
    source = scaled_dot_product_attention(case.q_source, case.k_source, case.v_source)
    ones, zeros = torch.ones_like(case.mask), torch.zeros_like(case.mask)
    torch.testing.assert_close(replace(case, mask=ones).run(backend), edit)
    torch.testing.assert_close(replace(case, mask=zeros).run(backend), source)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("queries", "dim"), [(8, 40), (72, 64), (256, 160), (1024, 80), (1200, 40)]
)
def test_binary_rows_are_bit_identical_to_plain_attention(queries, dim, dtype):
    case = blend_case(Shape(queries=queries, keys=queries, source_keys=600, dim=dim), dtype)
    out = case.run("torch").transpose(1, 2)
    edit = scaled_dot_product_attention(case.q, case.k, case.v).transpose(1, 2)
    source = scaled_dot_product_attention(case.q_source, case.k_source, case.v_source)
    assert torch.equal(out[case.mask == 1], edit[case.mask == 1])
    assert torch.equal(out[case.mask == 0], source.transpose(1, 2)[case.mask == 0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("queries", [8, 130])
def test_a_binary_row_never_sees_the_branch_it_does_not_need(backend, queries):
    case = blend_case(Shape(queries=queries), mask="mixed")
    nan = torch.full_like(case.q, float("nan"))
    inside, outside = case.mask == 1, case.mask == 0
    for name, clean in (("q", outside), ("q_source", inside)):
        out = replace(case, **{name: nan}).run(backend).transpose(1, 2)
        assert torch.equal(out[clean], case.run(backend).transpose(1, 2)[clean])
        assert out[~clean].isnan().all()


def test_two_runs_agree_bit_by_bit():
    case = blend_case(Shape(queries=500, keys=300))
    assert torch.equal(case.run("torch"), case.run("torch"))


def test_permuting_the_heads_permutes_the_output():
    case = blend_case(Shape(heads=3))
    heads = torch.tensor([2, 0, 1])
    tensors = {name: x[:, heads] for name, x in vars(case).items() if x is not None and x.ndim == 4}
    assert torch.equal(replace(case, **tensors).run("torch"), case.run("torch")[:, heads])


def test_a_sequence_alone_equals_the_same_sequence_in_a_batch():
    case = blend_case(Shape(batch=3, queries=136))
    alone = replace(case, **{name: x[1:2] for name, x in vars(case).items() if x is not None})
    assert torch.equal(alone.run("torch"), case.run("torch")[1:2])


def test_a_prepared_plan_gives_the_same_bits():
    case = blend_case(Shape(queries=130))
    planned = replace(case, mask=MaskPlan.from_mask(case.mask))
    assert torch.equal(planned.run("torch"), case.run("torch"))


@pytest.mark.parametrize("queries", [8, 130])
def test_a_frame_table_equals_concatenated_keys(queries):
    case = blend_case(Shape(batch=4, queries=queries, keys=20, source_keys=30))
    table = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 2]])
    names = ("k", "v", "k_source", "v_source")
    joined = {n: getattr(case, n)[table].transpose(1, 2).flatten(2, 3) for n in names}
    out = replace(case, frame_table=table).run("torch")
    torch.testing.assert_close(out, replace(case, **joined).run("torch"))


@pytest.mark.parametrize("queries", [8, 130])
def test_heads_last_and_expanded_inputs_give_the_same_result(queries):
    case = blend_case(Shape(queries=queries))
    heads_last = {
        name: x.transpose(1, 2).contiguous().transpose(1, 2)
        for name, x in vars(case).items()
        if x is not None and x.ndim == 4
    }
    assert torch.equal(replace(case, **heads_last).run("torch"), case.run("torch"))
    expanded = replace(case, k=case.k[:1].expand_as(case.k), q=case.q[:, :1].expand_as(case.q))
    copied = replace(expanded, k=expanded.k.contiguous(), q=expanded.q.contiguous())
    assert torch.equal(expanded.run("torch"), copied.run("torch"))


def test_merging_the_heads_of_the_output_copies_nothing():
    out = blend_case(Shape(queries=130)).run("torch")
    assert out.transpose(1, 2).is_contiguous()


def test_v_source_defaults_to_v_and_scale_to_the_root_of_the_head_dimension():
    case = blend_case(Shape())
    given = {"q_source": case.q_source, "k_source": case.k_source, "mask": case.mask}
    implicit = blended_attention(case.q, case.k, case.v, **given)
    explicit = blended_attention(case.q, case.k, case.v, **given, v_source=case.v, scale=40**-0.5)
    assert torch.equal(implicit, explicit)
    assert not torch.equal(implicit, blended_attention(case.q, case.k, case.v, **given, scale=1.0))


def test_kept_values_are_added_outside_the_mask_only():
    case = replace(blend_case(Shape(), torch.float64), v_kept=torch.ones(2, 2, 64, 40).double())
    difference = case.run("torch") - replace(case, v_kept=None).run("torch")
    expected = (1 - case.mask.double())[:, None, :, None].expand_as(difference)
    torch.testing.assert_close(difference, expected)


@pytest.mark.parametrize("mask", ["binary", "mixed", "zeros"])
def test_the_size_of_the_parts_changes_no_bit(mask):
    case = blend_case(Shape(batch=6, queries=256, keys=256, source_keys=256), mask=mask)
    arguments = dict(vars(case))
    q, k, v = (arguments.pop(name) for name in ("q", "k", "v"))
    small, large = (
        blended_attention(q, k, v, **arguments, backend="torch", part_bytes=count)
        for count in (1, 1 << 30)
    )
    assert torch.equal(small, large)
    assert torch.equal(small, case.run("torch"))


def with_parts(case, part_bytes):
    """Runs a sample in parts of some bytes of queries."""
    arguments = dict(vars(case))
    q, k, v = (arguments.pop(name) for name in ("q", "k", "v"))
    return blended_attention(q, k, v, **arguments, backend="torch", part_bytes=part_bytes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mask", ["binary", "mixed", "zeros", "ones"])
def test_the_rows_of_one_long_sequence_run_in_parts_that_change_no_bit(mask, dtype):
    shape = Shape(batch=1, heads=1, queries=4003, keys=24, source_keys=40, dim=128)
    case = blend_case(shape, dtype, mask=mask)
    case = replace(case, v_kept=case.v.flip(2))
    assert torch.equal(with_parts(case, 1), with_parts(case, 1 << 30))


@pytest.mark.parametrize("mask", ["binary", "zeros"])
def test_the_memory_of_one_long_sequence_is_its_output_and_some_parts(mask):
    shape = Shape(batch=1, heads=1, queries=30_000, keys=32, source_keys=32, dim=128)
    case = blend_case(shape, torch.bfloat16, mask=mask)
    case = replace(case, mask=MaskPlan.from_mask(case.mask))
    output = 30_000 * 128 * 2
    assert peak_bytes(lambda: with_parts(case, 1), "cpu") < 1.5 * output
    assert peak_bytes(lambda: with_parts(case, 1 << 30), "cpu") > 1.9 * output
