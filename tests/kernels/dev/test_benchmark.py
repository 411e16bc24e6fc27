"""The benchmark: its masks, its variants and its output, not the speed of this machine."""

import json
from dataclasses import replace

import pytest
import torch

from freemask.kernels.dev import benchmark
from freemask.kernels.dev.benchmark import SIZES, blob_mask
from freemask.kernels.dev.cost import Size

SMALL = Size(2, 2, 64, 77, 8, text=True)


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


@pytest.mark.parametrize("name", SIZES)
def test_only_the_keys_of_a_prompt_are_a_text(name):
    assert SIZES[name].text == ("cross" in name)
    assert SIZES[name].text == (SIZES[name].keys in (77, 512) and "sparse" not in name)


def test_a_size_without_a_text_has_no_word_map_and_no_token_edit():
    calls = benchmark.variants(replace(SMALL, text=False), torch.float32, "cpu", 0.3, 0, "auto")
    assert set(calls) == {"plain", "blended", "two passes", "eager maps"}


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
    (line,) = (line for line in printed.splitlines() if line.startswith("wan self 32760"))
    assert "24564" in line.split()  # MiB of one map
