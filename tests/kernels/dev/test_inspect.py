"""The machine code of the Triton kernels, compiled ahead of time without a GPU."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from freemask.kernels.dev.inspect import (
    ALL_DIMS,
    ARCHITECTURES,
    DIT_DTYPES,
    DTYPES,
    HALF_ONLY,
    Config,
    Report,
    configurations,
    dit_configurations,
    main,
    row,
)
from freemask.kernels.triton import tiles

pytest.importorskip("triton")


def reports(folder, *arguments):
    """Runs the command in a process of its own, which no interpreter has patched."""
    out = folder / "reports.json"
    command = [sys.executable, "-m", "freemask.kernels.dev.inspect", "--json", str(out), *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    return json.loads(out.read_text())


def test_the_default_configurations_are_fit_to_ship(tmp_path):
    archs = ("sm_80", "sm_90", "sm_100", "gfx942")
    found = reports(tmp_path, "--dim", "40", "160", "--arch", *archs)
    assert len(found) == len(archs) * 2 * 2
    assert all(report["spills"] == 0 and report["matrix"] > 0 for report in found)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_launches_of_a_video_transformer_are_fit_to_ship(arch, tmp_path):
    found = reports(tmp_path, "--dit", "--arch", arch)
    assert len(found) == len(DIT_DTYPES) * 4
    assert all(report["spills"] == 0 and report["matrix"] > 0 for report in found)


def test_float32_is_inspected_where_its_registers_suffice():
    found = list(configurations(["sm_80", "sm_120"], [64], ["fp16", "fp32"], variants=False))
    assert [(config.arch, config.dtype) for config in found if config.kernel == "word"] == [
        ("sm_80", "fp16"),
        ("sm_80", "fp32"),
        ("sm_120", "fp16"),
    ]


def test_a_video_transformer_launches_its_tokens_and_a_text():
    found = list(dit_configurations(["sm_90"], ["bf16"]))
    assert {config.dim for config in found} == {128}
    assert all(config.aligned for config in found)
    rows = [config for config in found if config.outside]
    assert [(config.queries, config.kept, config.even) for config in rows] == [(6552, False, False)]
    found = [config for config in found if not config.outside]
    long = [config for config in found if config.kernel == "blended" and not config.kept]
    for config, tokens in zip(long, (8192, 32760), strict=True):
        tile = tiles.choose_tile("sm_90", 128, DTYPES["bf16"], tokens)
        assert (config.queries, config.even) == (tokens, tokens % tile.block_n == 0)
    assert [config.kernel for config in found if config not in long] == ["blended", "word"]


def test_the_head_dimension_of_a_video_transformer_is_not_chosen(capsys):
    with pytest.raises(SystemExit):
        main(["--dit", "--dim", "40"])
    assert "head dimension is 128" in capsys.readouterr().err


INSPECTED = [
    (arch, dtype)
    for arch in tiles.HALF
    for dtype in DTYPES
    if dtype != "fp32" or arch not in HALF_ONLY
]


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "dtype"), INSPECTED)
def test_every_configuration_is_fit_to_ship(arch, dtype, tmp_path):
    found = reports(tmp_path, "--all", "--arch", arch, "--dtype", dtype)
    assert len(found) == len(ALL_DIMS) * 4


GOOD = Report(
    config=Config("blended", "sm_80", 40, "fp16"),
    tile=tiles.Tile(64, 64, 4, 2, "ieee"),
    registers=168,
    spills=0,
    shared=1 << 15,
    matrix=48,
    async_copies=12,
    outer_loops=1,
    inner_loops=2,
    predicated_matrix=0,
)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"spills": 8}, "8 spills"),
        ({"shared": 164 << 10}, "shared memory"),
        ({"matrix": 0}, "no matrix instructions"),
        ({"async_copies": 0}, "no asynchronous copies"),
        ({"outer_loops": 0}, "outside the branch loop"),
        ({"inner_loops": 1}, "no loop over the keys"),
        ({"predicated_matrix": 2}, "predicated"),
    ],
)
def test_a_fault_of_each_kind_is_named(change, fault):
    assert GOOD.faults() == []
    assert row(GOOD).endswith("ok")
    bad = replace(GOOD, **change)
    assert len(bad.faults()) == 1
    assert fault in row(bad)


def test_the_interpreter_cannot_be_inspected(monkeypatch):
    from freemask.kernels.dev.inspect import inspect

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="unset TRITON_INTERPRET"):
        inspect(GOOD.config)
