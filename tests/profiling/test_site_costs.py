"""Costs of the fused sites, on a checkpoint of a few weights."""

from __future__ import annotations

from freemask.data.sprites import Clip
from freemask.editors.editor import Editor
from freemask.profiling.site_costs import probe_sites, site_cost_table
from freemask.types import EditRequest


def test_every_fused_site_is_measured_under_every_backend_that_runs(
    editor: Editor, clip: Clip
) -> None:
    request = EditRequest(
        "a bear on the grass",
        "a panda on the grass",
        words=("bear", "panda"),
        task="shape",
        steps=2,
        overrides={"mask.policy": "naive", "strength": 1.0},
    )
    probe = probe_sites(editor, clip.video, request)
    assert set(probe.costs) == set(editor.sites(editor.latent_size(clip.video.size)))
    for row in probe.costs.values():
        assert set(row) == {"reference", "torch"}  # no GPU: Triton cannot run
        assert all(seconds > 0 and size > 0 for seconds, size in row.values())
    lines = site_cost_table(probe).splitlines()
    assert lines[0].split() == [
        "fused",
        "site",
        "at",
        "reference",
        "ms",
        "MiB",
        "torch",
        "ms",
        "MiB",
    ]
    assert len(lines) == 1 + len(probe.costs)
