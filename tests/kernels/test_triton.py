"""The Triton kernels' numbers: on a GPU where there is one, else run by Triton's interpreter."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freemask.kernels import blended_attention, word_attention
from freemask.kernels.dev.testing import MASKS, Sample, Shape, assert_close, blend_case
from freemask.kernels.mask_plan import MaskPlan
from freemask.kernels.triton import launch as launching
from freemask.kernels.triton import tiles

interpreter_of_triton = pytest.importorskip("triton.runtime.interpreter")
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True, scope="module")
def interpreter():
    """Interpret the kernels on a CPU; only while this file runs."""
    with pytest.MonkeyPatch.context() as patch:
        if not ON_GPU:
            patch.setenv("TRITON_INTERPRET", "1")
        yield


def on_device(case: Sample) -> Sample:
    return replace(case, **{n: x.to(DEVICE) for n, x in vars(case).items() if x is not None})


def check(case: Sample) -> None:
    case = on_device(case)
    exact = case.to(torch.float64).run("reference")
    assert_close(case.run("triton"), case.run("reference"), exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("queries", [1, 37, 130])
def test_masks_and_odd_lengths_stay_within_the_error_budget(queries, mask, dtype):
    shape = Shape(batch=2, heads=1, queries=queries, keys=77, source_keys=7, dim=40)
    check(blend_case(shape, dtype, mask=mask))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [8, 16, 24, 40, 64, 72, 80, 96, 120, 128, 160, 192, 256])
def test_every_head_dimension_stays_within_the_error_budget(dim, dtype):
    check(blend_case(Shape(batch=1, heads=2, queries=37, keys=41, source_keys=64, dim=dim), dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("keys", [1, 7, 77, 130])
def test_key_lengths_differ_between_edit_and_source(keys, dtype):
    check(blend_case(Shape(batch=1, queries=33, keys=keys, source_keys=131 - keys, dim=40), dtype))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_shape_mask_table_and_kept_values(data):
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
    check(case)


def masked_rows(case: Sample, backend: str = "triton") -> torch.Tensor:
    return case.run(backend).transpose(1, 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_binary_rows_are_bit_identical_to_plain_attention(dtype):
    case = on_device(blend_case(Shape(queries=100, keys=77, source_keys=50), dtype))
    plain = replace(case, mask=torch.ones_like(case.mask))
    swapped = {"q": case.q_source, "k": case.k_source, "v": case.v_source}
    out, inside, outside = masked_rows(case), case.mask == 1, case.mask == 0
    assert torch.equal(out[inside], masked_rows(plain)[inside])
    assert torch.equal(out[outside], masked_rows(replace(plain, **swapped))[outside])


def test_a_binary_row_never_sees_the_branch_it_does_not_need():
    case = on_device(blend_case(Shape(queries=100)))
    nan, clean = torch.full_like(case.q, float("nan")), masked_rows(case)
    for name, unaffected in (("q", case.mask == 0), ("q_source", case.mask == 1)):
        out = masked_rows(replace(case, **{name: nan}))
        assert torch.equal(out[unaffected], clean[unaffected])
        assert out[~unaffected].isnan().all()


def test_two_runs_agree_bit_by_bit():
    case = on_device(blend_case(Shape(queries=100)))
    assert torch.equal(case.run("triton"), case.run("triton"))


def strided(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The values of `x (B, H, N, D)` in another layout."""
    if layout == "heads last":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "part of a fused projection":  # q, k and v side by side: row stride 3 H D
        return torch.stack([x, x, x]).permute(1, 3, 0, 2, 4).contiguous()[:, :, 1].transpose(1, 2)
    if layout == "odd stride":  # no stride is a multiple of 8
        return torch.nn.functional.pad(x, (0, 3))[..., : x.shape[3]]
    return x.transpose(2, 3).contiguous().transpose(2, 3)  # "last axis not dense"


@pytest.mark.parametrize(
    "layout", ["heads last", "part of a fused projection", "odd stride", "last axis not dense"]
)
def test_strides_are_honoured(layout):
    case = on_device(blend_case(Shape(queries=70, keys=33, source_keys=20)))
    tensors = {
        n: strided(x, layout) for n, x in vars(case).items() if x is not None and x.ndim == 4
    }
    assert all(not x.is_contiguous() for x in tensors.values())
    assert torch.equal(replace(case, **tensors).run("triton"), case.run("triton"))


def test_expanded_tensors_are_read_in_place():
    case = on_device(blend_case(Shape(batch=3, queries=70)))
    shared = {"k": case.k[:1].expand(3, -1, -1, -1), "q": case.q[:, :1].expand(-1, 2, -1, -1)}
    (view, *_), unit = launching.views(shared["k"])
    assert view[0].data_ptr() == case.k.data_ptr()
    assert view[1:] == (0, 64 * 40 // unit, 40 // unit)
    copied = {name: x.contiguous() for name, x in shared.items()}
    assert torch.equal(replace(case, **shared).run("triton"), replace(case, **copied).run("triton"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [40, 72, 120])
def test_every_element_is_written_and_nothing_outside(dim, dtype, monkeypatch):
    """The output is poisoned, and lies in the middle of a poisoned buffer."""
    from freemask.kernels.triton import blended as blended_triton
    from freemask.kernels.triton import word as word_triton

    case = on_device(blend_case(Shape(queries=37, keys=20, source_keys=20, dim=dim), dtype))
    guard, size = 64 * dim, case.q.numel()
    buffers = []

    def poisoned(q):
        buffer = torch.full((size + 2 * guard,), float("nan"), dtype=q.dtype, device=q.device)
        buffers.append(buffer)
        batch, heads, rows, width = q.shape
        inner = buffer[guard : guard + size].view(batch, rows, heads, width)
        return inner.transpose(1, 2)

    for module in (blended_triton, word_triton):
        monkeypatch.setattr(module, "empty_output", poisoned)
    plan = MaskPlan.from_mask(case.mask)
    branches = (case.q, case.k, case.v, case.q_source, case.k_source, case.v_source)
    blended_triton.launch(*branches, None, plan.mask, plan.order, None, 0.2)
    word_triton.launch(*branches[:3], torch.ones(2, 20, device=DEVICE), 0.2)
    for buffer in buffers:
        assert torch.isfinite(buffer[guard : guard + size]).all()
        assert buffer[:guard].isnan().all()
        assert buffer[guard + size :].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("queries", "keys", "dim"), [(1, 77, 40), (37, 1, 64), (35, 77, 160)])
def test_word_attention_stays_within_the_error_budget(queries, keys, dim, dtype):
    batch = max(2, 16 // queries)  # the budget compares maxima, which take some numbers
    case = on_device(blend_case(Shape(batch=batch, queries=queries, keys=keys, dim=dim), dtype))
    tensors, weights = (case.q, case.k, case.v), torch.rand(batch, keys).to(DEVICE)
    wide = [x.double() for x in tensors]
    exact = word_attention(*wide, word_weights=weights, backend="reference")
    eager = word_attention(*tensors, word_weights=weights, backend="reference")
    fast = word_attention(*tensors, word_weights=weights, backend="triton")
    for results in zip(fast, eager, exact, strict=True):
        assert_close(*results)
    again = word_attention(*tensors, word_weights=weights, backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(fast, again, strict=True))


def test_the_word_map_of_all_tokens_is_one():
    case = on_device(blend_case(Shape(queries=50, keys=77)))
    ones = torch.ones(77, device=DEVICE)
    _, word_map = word_attention(case.q, case.k, case.v, word_weights=ones, backend="triton")
    torch.testing.assert_close(word_map, torch.ones_like(word_map))


@pytest.mark.parametrize("programs", [65_536, 2**31 - 1])
def test_a_grid_holds_more_than_65535_sequences(programs):
    assert launching.grid(programs) == (programs,)


def test_a_grid_beyond_one_launch_is_an_error():
    with pytest.raises(ValueError, match="split the batch"):
        launching.grid(2**31)


def test_more_than_65535_sequences(monkeypatch):
    sequences = 65_537
    run = range(sequences) if ON_GPU else [0, 1, sequences - 2, sequences - 1]

    def only_some_programs(*bounds):  # of the grid; a GPU runs them all
        return run if bounds == (sequences,) else range(*bounds)

    monkeypatch.setattr(interpreter_of_triton, "range", only_some_programs, raising=False)
    x = torch.randn(sequences, 1, 2, 8).to(DEVICE)
    mask = torch.tensor([1.0, 0.0]).to(DEVICE).expand(sequences, 2)
    sources = {"q_source": x.flip(2), "k_source": x}
    out = blended_attention(x, x, x, **sources, mask=mask, backend="triton")
    expected = blended_attention(x, x, x, **sources, mask=mask, backend="torch")
    torch.testing.assert_close(out[run], expected[run])


def test_rows_beyond_32_bit_offsets_are_an_error():
    huge = (
        torch.empty(1, device="meta").expand(1, 1, 3, 8).as_strided((1, 1, 3, 8), (0, 0, 2**30, 1))
    )
    with pytest.raises(ValueError, match="32-bit row offsets"):
        launching.views(huge)


def test_head_dimensions_are_split_without_paying_for_a_power_of_two():
    expected = {8: (16, 0), 40: (32, 16), 64: (64, 0), 80: (64, 16), 120: (128, 0), 160: (128, 32)}
    assert {dim: tiles.slices(dim) for dim in expected} == expected
    for dim in range(8, 257, 8):
        first, second = tiles.slices(dim)
        assert dim <= first + second <= 1.5 * dim or dim < 16


def test_the_interpreter_is_put_back_as_it_was():
    from triton.runtime.interpreter import interpreter_builder
    from triton.runtime.jit import JITFunction

    def state():
        return interpreter_builder.create_dot, interpreter_builder.cast_impl, JITFunction.__call__

    before = state()
    with launching.interpreting():
        assert all(inside != outside for inside, outside in zip(state(), before, strict=True))
    assert state() == before
