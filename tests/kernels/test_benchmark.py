"""The cost model, the benchmark and the tuner: what they compute, not how fast this machine is."""

import json
import math

import pytest
import torch

from freemask.kernels.dev import benchmark, cost, tune
from freemask.kernels.dev.benchmark import SIZES, blob_mask
from freemask.kernels.dev.cost import Size
from freemask.kernels.triton import tiles

SMALL = Size(2, 2, 64, 77, 8)


def test_the_floors_of_the_sparse_causal_layer_are_those_computed_by_hand():
    """N 4096, Nk 8192, d 40, 8 frames, 8 heads, fp16, on an H100."""
    work = cost.blend(SIZES["sparse-causal 4096"], torch.float16)
    floors = work.floors(cost.GPUS["H100"])
    assert work.flop == 4 * 8 * 8 * 4096 * 8192 * 40
    assert work.eager_memory == 10 * 2 * 8 * 8 * 4096 * 8192
    assert floors["arithmetic"] == pytest.approx(0.35e-3, rel=0.02)
    assert floors["exponentials"] == pytest.approx(0.58e-3, rel=0.02)
    assert floors["eager"] == pytest.approx(12.8e-3, rel=0.02)
    assert work.floor(cost.GPUS["H100"]) == floors["exponentials"]


def test_soft_rows_cost_both_branches():
    binary, soft = (cost.blend(SMALL, torch.float32, soft=s) for s in (0.0, 1.0))
    assert (soft.flop, soft.exponentials) == (2 * binary.flop, 2 * binary.exponentials)
    query_bytes = 2 * 2 * 64 * 8 * 4
    assert soft.memory - binary.memory == query_bytes
    with pytest.raises(ValueError, match=r"\[0, 1\]; got 2"):
        cost.blend(SMALL, torch.float32, soft=2)


@pytest.mark.parametrize("coverage", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("name", ["self 1024", "self 256", "temporal 8"])
def test_a_blob_covers_what_it_should(name, coverage):
    size = SIZES[name]
    mask = blob_mask(size, coverage, 0.0)
    assert mask.shape == (size.batch, size.queries)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert mask.mean().item() == pytest.approx(coverage, abs=1 / 256)
    if 0 < coverage < 1:
        assert not torch.equal(mask[:, 0], mask[:, -1]) or mask.std(0).max() > 0


def test_a_blob_has_the_soft_rows_that_were_asked_for():
    mask = blob_mask(SIZES["self 1024"], 0.3, 0.1)
    soft = ((mask > 0) & (mask < 1)).float().mean().item()
    assert soft == pytest.approx(0.1, abs=0.01)
    assert mask.mean().item() == pytest.approx(0.3, abs=0.01)


def test_all_variants_of_a_size_compute_the_same_blend():
    calls = benchmark.variants(SMALL, torch.float32, "cpu", 0.3, 0.2, "auto")
    assert set(calls) == {"plain", "blended", "two passes", "eager maps", "word", "token edit"}
    expected = calls["two passes"]()
    for name in ("blended", "eager maps"):
        torch.testing.assert_close(calls[name](), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(calls["word"]()[0], calls["plain"]())


def test_rounds_are_interleaved_and_every_turn_starts_with_an_untimed_call():
    seen = []
    calls = {name: lambda name=name: seen.append(name) for name in "ab"}
    times = benchmark.interleave(calls, 2, "cpu")
    assert "".join(seen) == "aabbaabb"
    assert {name: len(t) for name, t in times.items()} == {"a": 2, "b": 2}


def test_peak_memory_counts_what_is_held_at_once():
    def call():
        for _ in range(3):
            torch.empty(1 << 20, dtype=torch.uint8)
        return torch.empty(1 << 21, dtype=torch.uint8)

    assert benchmark.peak_bytes(call, "cpu") == pytest.approx(1 << 21, rel=0.01)


def test_a_run_prints_ratios_and_writes_json_and_a_chart(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(SIZES, "self 64", SMALL)
    arguments = ["--size", "self 64", "--dtype", "fp32", "--rounds", "1", "--out", str(tmp_path)]
    assert benchmark.main(arguments) == 0
    records = json.loads((tmp_path / "attention.json").read_text())
    by_name = {record["variant"]: record for record in records}
    assert by_name["plain"]["ratio"] == 1
    assert by_name["blended"]["peak_over_output"] >= 1
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert all(name in capsys.readouterr().out for name in ("two passes",))


def test_the_floors_are_printed_without_measuring(capsys):
    assert benchmark.main(["--floors", "--dtype", "bf16"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SIZES)


def test_the_tuner_writes_the_fastest_rows_in_the_form_of_the_table(tmp_path):
    def seconds(row, dtype):  # fastest at the largest blocks that "fit"
        _, block_m, block_n, warps, stages = row
        fits = block_m * block_n <= 64 * 64 and (warps, stages) == (4, 2)
        return 1 / (block_m * block_n) + block_n * 1e-9 if fits else math.inf

    out = tmp_path / "tiles.json"
    assert tune.main(["--out", str(out)], seconds) == 0
    tuned = json.loads(out.read_text())
    assert tuned["HALF"] == [[dim, 128, 32, 4, 2] for dim in tune.DIMS]
    assert tuned["HALF"][-1][0] == tiles.HALF["sm_90"][-1][0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="would tune this GPU")
def test_tuning_without_a_gpu_is_an_error(capsys):
    with pytest.raises(SystemExit):
        tune.main([])
    assert "none is available" in capsys.readouterr().err
