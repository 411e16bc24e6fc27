"""Shares of stages and kinds of work in the time of an edit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from freemask.profiling.time_shares import WORK, stage_of, time_table, work_of


def event(*names: str) -> SimpleNamespace:
    """Makes a profiler event from its callers' names and its own, outermost first."""
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
def test_an_operator_has_one_stage_and_one_kind_of_work(
    names: list[str], stage: str, work: str
) -> None:
    assert (stage_of(event(*names)), work_of(event(*names))) == (stage, work)


def test_shares_add_up() -> None:
    work = dict.fromkeys(WORK, 0.0)
    seconds = {"denoise": work | {"attention": 3.0}, "inversion": work | {"linear": 4.0}}
    lines = time_table(seconds, files=1.0).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["inversion", "denoise", "files"]
    assert [line.split()[-1] for line in lines[1:]] == ["50.0%", "37.5%", "12.5%"]
