"""The profile of a whole edit, on a checkpoint of a few weights."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from freemask.cli import commands as cli
from freemask.profiling.profile import measure_memory, memory_table
from freemask.profiling.request import ProfileRequest


@pytest.fixture
def tiny(checkpoint: Path) -> ProfileRequest:
    return ProfileRequest(
        checkpoint=str(checkpoint), device="cpu", size=(32, 48), frames=4, steps=2
    )


def test_replaying_the_source_needs_the_memory_of_plain_generation(tiny: ProfileRequest) -> None:
    found = measure_memory(tiny, tiny.load_editor())
    assert found["replay"] <= 1.1 * found["plain"]
    assert found["store"] > found["replay"]


def test_the_memory_table_is_in_units_of_plain_generation() -> None:
    rows = memory_table({"plain": 2 << 20, "replay": 3 << 20}).splitlines()
    assert rows[2].split() == ["replay", "3.0", "1.50"]


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
