"""The cost of an edit, told before it runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_desk import Desk
from tiny_wan import write_wan
from torch import Tensor

from freemask.cli.commands import main
from freemask.editors import registry
from freemask.editors.editor import Editor
from freemask.editors.registry import editor_class, load_blueprint
from freemask.editors.request import EditorRequest
from freemask.pipeline import edit
from freemask.profiling.checkpoint_report import BACKBONES
from freemask.profiling.edit_cost import GUESSED, EditCost, costs_of, edit_costs, pass_flop
from freemask.resolve import for_editor
from freemask.settings.presets import load_settings
from freemask.types import EditRequest, Video

WAN = load_blueprint("wan", checkpoint=BACKBONES / "wan-2.1-1.3b", dtype=torch.bfloat16)
REQUEST = EditRequest("a bear on the grass", "a panda on the grass", words=("bear", "panda"))


def costs(frames: int, *, mask: Tensor | None = None, **overrides: object) -> list[EditCost]:
    settings = for_editor(load_settings("shape", overrides, family="flow"), editor_class("wan"))
    size = (480, 832)
    return list(costs_of(WAN, settings, REQUEST, frames=frames, size=size, mask=mask))


def test_the_work_of_a_pass_is_that_of_its_matrix_products() -> None:
    tokens, width, feed_forward, text, blocks = 21 * 30 * 52, 1536, 8960, 512, 30
    per_token = 6 * width**2 + 2 * width * feed_forward  # self q k v o, cross q o, feed-forward
    products = tokens * per_token + 2 * text * width**2 + 2 * tokens * (tokens + text) * width
    found = pass_flop(WAN, 81, (480, 832))
    assert found == pytest.approx(2 * blocks * products, rel=0.01)


def test_an_unknown_mask_gives_a_cost_for_each_guess() -> None:
    few, many = costs(17)
    assert (few.coverage, many.coverage) == GUESSED
    assert few.calls.denoise < many.calls.denoise <= few.calls.plain * 1.5
    assert few.total_flop == pytest.approx(few.calls.total * few.flop)


def test_a_given_mask_and_its_margin_give_the_coverage() -> None:
    mask = torch.zeros(17, 480, 832)
    mask[:, :240] = 1
    (cost,) = costs(17, mask=mask, **{"fusion.margin": 0.0})
    assert cost.coverage == pytest.approx(0.5)
    (more,) = costs(17, mask=mask, **{"fusion.margin": 0.1})
    assert more.coverage == pytest.approx(0.6, abs=0.04)
    assert more.calls.total > cost.calls.total


def test_long_clips_count_every_window() -> None:
    windows = {"window.frames": 9, "window.overlap": 4, "window.anchors": 1}
    one, many = (costs(frames, **windows)[0] for frames in (9, 25))
    assert one.windows == 1
    assert many.windows > 2
    assert many.total_flop == pytest.approx(one.total_flop * many.windows)
    assert many.memory == one.memory  # windows run one by one


def test_an_addition_counts_its_look_ahead_and_needs_no_codebook(
    tmp_path: Path, checkpoint: Path, editor: Editor, small: Video
) -> None:
    wanted = EditorRequest(checkpoint=str(checkpoint), device="cpu")
    request = EditRequest("the grass", "a bear on the grass", steps=4)
    (cost,) = edit_costs(wanted, request, frames=small.num_frames, size=small.size)
    assert cost.calls == edit(editor, small, request).planned


def never(*_: object, **__: object) -> None:
    raise AssertionError("weights were loaded")


@pytest.mark.parametrize("kind", ["unet", "wan", "wan with a mask"])
def test_a_dry_run_prints_the_cost_and_writes_nothing(
    kind: str,
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transformer = kind.startswith("wan")
    folder = write_wan(tmp_path / "wan") if transformer else checkpoint
    desk = Desk(tmp_path, folder)
    options: dict[str, object] = {"editor": "wan"} if transformer else {}
    if "mask" in kind:
        mask = np.zeros((4, 32, 48), dtype=np.uint8)
        mask[:, :16] = 1
        options["mask"] = desk.array("mask.npy", mask)
    monkeypatch.setattr(registry, "load_editor", never)
    assert main([*desk.edit(**options), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    found = re.findall(
        r"^calls   ([\d.]+) passes of the backbone( at \d+% of the tokens)?", out, re.M
    )
    assert len(found) == {"unet": 1, "wan": 2, "wan with a mask": 1}[kind]
    assert all(bool(at) == transformer for _, at in found)
    assert re.search(r"^work    [\d.e-]+ TFLOP; .* on an H100 at 40% of its peak", out, re.M)
    assert re.search(r"^memory  [\d.]+ GiB", out, re.M)
