"""Profiling an edit: the tables say what they measured, on a checkpoint of a few weights."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from freemask.cli import commands as cli
from freemask.profiling.profile import (
    ProfileRequest,
    memory_of,
    memory_table,
    shares_table,
    sites_of,
    stage_of,
    work_of,
)


@pytest.fixture
def request_(checkpoint: Path) -> ProfileRequest:
    return ProfileRequest(
        checkpoint=str(checkpoint), device="cpu", size=(32, 48), frames=4, steps=2
    )


def test_a_replayed_source_takes_the_memory_of_plain_generation(request_: ProfileRequest) -> None:
    found = memory_of(request_, request_.load())
    assert found["replay"] <= 1.1 * found["plain"]
    assert found["store"] > found["replay"]
    assert memory_table({"plain": 2 << 20, "replay": 3 << 20}).splitlines()[2].split() == [
        "replay",
        "3.0",
        "1.50",
    ]


def test_every_fused_site_is_measured_under_every_backend_that_runs(
    request_: ProfileRequest,
) -> None:
    editor = request_.load()
    query = sites_of(request_, editor)
    assert set(query.found) == set(editor.sites(editor.latent_size(request_.size)))
    for row in query.found.values():
        assert set(row) == {"reference", "torch"}  # no GPU: Triton cannot run
        assert all(seconds > 0 and size > 0 for seconds, size in row.values())


def event(*names: str) -> SimpleNamespace:
    """An operator and what called it, from the outside in."""
    found = None
    for name in names:
        found = SimpleNamespace(name=name, cpu_parent=found)
    assert found
    return found


@pytest.mark.parametrize(
    ("names", "stage", "work"),
    [
        (
            ["freemask.denoise", "aten::conv2d", "aten::mkldnn_convolution"],
            "denoise",
            "convolution",
        ),
        (["freemask.denoise", "freemask::blended_attention", "aten::bmm"], "denoise", "attention"),
        (["freemask.inversion", "freemask.vae.encode", "aten::addmm"], "vae", "linear"),
        (["freemask.inversion", "freemask.word_maps", "aten::mul"], "inversion", "other"),
        (["aten::native_group_norm"], "other", "norm"),
    ],
)
def test_an_operator_counts_once_where_it_belongs(names: list[str], stage: str, work: str) -> None:
    assert (stage_of(event(*names)), work_of(event(*names))) == (stage, work)


def test_shares_add_up() -> None:
    work = dict.fromkeys(("attention", "convolution", "linear", "norm", "other"), 0.0)
    seconds = {"denoise": work | {"attention": 3.0}, "inversion": work | {"linear": 4.0}}
    lines = shares_table(seconds, files=1.0).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["inversion", "denoise", "files"]
    assert [line.split()[-1] for line in lines[1:]] == ["50.0%", "37.5%", "12.5%"]


def test_the_command_prints_three_tables_and_writes_a_trace(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [f"--checkpoint={checkpoint}", f"--out={tmp_path}", "--device=cpu"]
    assert cli.main(["profile", "--edit", *where, "--frames=2", "--size=16x24", "--steps=2"]) == 0
    printed = capsys.readouterr().out
    for head in ("memory above the model", "share of the time", "fused site"):
        assert head in printed
    outcome = json.loads((tmp_path / "edit.json").read_text())
    assert set(outcome) == {"memory", "seconds", "files", "sites"}
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    named = Counter(e["name"] for e in events if str(e.get("name", "")).startswith("freemask."))
    for name in ("inversion", "denoise", "decode", "vae.encode", "vae.decode", "word_maps"):
        assert named[f"freemask.{name}"], name
    for kind in ("self", "cross", "temporal"):
        assert named[f"freemask.fusion.{kind}"], kind


def test_nothing_to_measure_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile"]) == 2
    assert "give --edit or --attention" in capsys.readouterr().err
