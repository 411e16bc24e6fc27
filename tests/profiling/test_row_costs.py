"""The cost of edits that compute the tokens inside their mask, on a tiny transformer."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from freemask.cli.commands import main
from freemask.editors.editor import Editor
from freemask.profiling import row_costs
from freemask.profiling.request import ProfileRequest
from freemask.profiling.row_costs import block_times, box_mask, edit_times, real_costs, without_vae


def test_a_box_covers_whole_cells_and_about_its_share() -> None:
    mask = box_mask(3, (32, 48), 0.2, 8)
    assert mask.shape == (1, 3, 32, 48)
    cells = mask.unflatten(3, (6, 8)).unflatten(2, (4, 8))
    assert torch.equal(cells.amin((3, 5)), cells.amax((3, 5)))
    assert mask[0, 0].mean().item() == pytest.approx(5 / 24)


def test_without_its_vae_an_editor_gives_the_clip_back(wan: Editor) -> None:
    clip = ProfileRequest(size=(32, 48), frames=5).clip()
    latents = wan.encode(clip)
    with without_vae(wan, clip):
        assert torch.equal(wan.encode(clip), latents)
        assert wan.decode(latents * 0, 8.0) is clip
    assert wan.decode(latents, 8.0) is not clip


def test_fewer_rows_cost_less_of_a_block_of_full_width() -> None:
    times = block_times(tokens=640, rounds=1)
    assert times["inside"] < 0.6 * times["all"]


def test_fewer_passes_over_fewer_tokens_at_real_size() -> None:
    by_edit = {row["edit"]: row for row in real_costs()}
    plain, *ours = (row["ratio"] for name, row in by_edit.items() if "Flow" not in name)
    assert plain == 1
    few, many, few_kept, many_kept = ours
    assert few_kept < few < many
    assert many_kept < many
    flow_edit, flow_director = (row["ratio"] for name, row in by_edit.items() if "Flow" in name)
    assert (flow_edit, flow_director) == (1.64, 6.4)
    assert all(row["seconds"] / row["calls"] > 0.1 for row in by_edit.values())


def test_an_edit_is_measured_at_each_coverage(wan_checkpoint: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(row_costs, "ROUNDS", 1)
    request = ProfileRequest(
        editor="wan", checkpoint=str(wan_checkpoint), size=(32, 48), frames=5, steps=4
    )
    records = edit_times(request, request.load_editor())
    assert len(records) == len(row_costs.COVERAGES) * len(row_costs.EVERY)
    assert all(record["time"] > 0 and record["memory"] > 0 for record in records)


@pytest.mark.slow
def test_the_command_prints_the_tables_for_a_transformer(
    wan_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(row_costs, "block_times", partial(block_times, tokens=40, rounds=1))
    monkeypatch.setattr(row_costs, "ROUNDS", 1)
    where = ["--editor=wan", f"--checkpoint={wan_checkpoint}", f"--out={tmp_path}", "--device=cpu"]
    assert main(["profile", "--edit", *where, "--frames=5", "--size=32x48", "--steps=2"]) == 0
    printed = capsys.readouterr().out
    for head in (
        "of the time of all rows",
        "edit without VAE",
        "Wan 2.1 1.3B, by count",
        "FlowEdit",
    ):
        assert head in printed
    assert set(json.loads((tmp_path / "edit.json").read_text())["rows"]) == {
        "block",
        "edits",
        "real",
    }
