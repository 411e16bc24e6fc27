"""Compiles the Triton kernels ahead of time and inspects their machine code; needs no GPU.

    python -m freemask.kernels.dev.inspect --dim 40 160
    python -m freemask.kernels.dev.inspect --dit

`--dit` compiles what the layers of a Wan transformer launch: self-attention over 8,192 and 32,760
tokens, and cross-attention with a token edit and with a word map over 512 text tokens.

The table shows, for every configuration of the tile table, the registers per thread, spills, shared
memory, matrix instructions and asynchronous copies. It also shows whether a block really skips the
branch that it does not need: all matrix instructions must lie inside the loop over branches, and
none may be predicated. The column `loops` counts the backward jumps around the outermost and around
the innermost matrix instruction.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from freemask.kernels.dev.tables import output_path
from freemask.kernels.triton import tiles

SHARED_LIMIT = {
    "sm_80": 163 << 10,
    "sm_89": 99 << 10,
    "sm_90": 227 << 10,
    "sm_100": 227 << 10,
    "sm_120": 99 << 10,
    "gfx942": 64 << 10,
}
ARCHITECTURES = tuple(SHARED_LIMIT)
TILES_OF = {"sm_89": "sm_80"}  # an architecture without tiles of its own uses these
HALF_ONLY = ("sm_120",)  # its registers are too few for float32 and a head dimension of 256
KERNELS = ("blended", "word")
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
DEFAULT_DIMS = (40, 64, 80, 160)
ALL_DIMS = (8, 40, 64, 80, 128, 160, 256)
DIT_DIM = 128
DIT_DTYPES = ("fp16", "bf16")
MATRIX = {
    "sm_80": r"HMMA",
    "sm_89": r"HMMA",
    "sm_90": r"HGMMA|HMMA",
    "sm_100": r"UTC\w*MMA|HMMA",
    "sm_120": r"HMMA",
    "gfx942": r"v_mfma",
}
ASYNC_COPY = r"LDGSTS|UTMALDG"


@dataclass(frozen=True)
class Config:
    """One compilation.

    kernel: "blended" or "word".
    arch: target architecture.
    dim: head dimension.
    dtype: key of `DTYPES`.
    queries: rows of a sequence.
    even: whether the keys fill their blocks.
    kept: whether `v_kept` is given.
    columns: width of the frame table, 0 for none.
    outside: whether further keys lie elsewhere.
    aligned: whether strides, and lengths that allow it, are known multiples of 16. Triton compiles
        a launch for them, and all strides of heads of dimension 128 are (in units of 8 elements).
    """

    kernel: str
    arch: str
    dim: int
    dtype: str
    queries: int = 4096
    even: bool = True
    kept: bool = False
    columns: int = 0
    outside: bool = False
    aligned: bool = False


@dataclass(frozen=True)
class Report:
    """The contents of one configuration's machine code."""

    config: Config
    tile: tiles.Tile
    registers: int
    spills: int
    shared: int
    matrix: int
    async_copies: int
    outer_loops: int
    inner_loops: int
    predicated_matrix: int

    def faults(self) -> list[str]:
        """Returns the reasons why this configuration must not ship; empty if it may."""
        branches = int(
            self.config.kernel == "blended"
        )  # the loop over branches encloses all others
        checks = {
            f"{self.spills} spills": self.spills == 0,
            f"{self.shared} bytes of shared memory": self.shared <= SHARED_LIMIT[self.config.arch],
            "no matrix instructions": self.matrix > 0,
            "no asynchronous copies": self.async_copies > 0 or not self.expects_async(),
            "matrix instructions outside the branch loop": self.outer_loops >= branches,
            "no loop over the keys": self.inner_loops > branches,
            "predicated matrix instructions": self.predicated_matrix == 0,
        }
        return [fault for fault, passed in checks.items() if not passed]

    def expects_async(self) -> bool:
        """Returns whether the loop is pipelined: more than one stage on NVIDIA hardware."""
        return self.config.arch.startswith("sm") and self.tile.stages > 1


def configurations(
    archs: Iterable[str], dims: Iterable[int], dtypes: Iterable[str], *, variants: bool
) -> Iterator[Config]:
    """Yields both kernels for every combination, without float32 on an architecture of HALF_ONLY.

    variants: adds the most demanding blend (uneven keys, kept values, two key frames) and the short
        sequences of temporal attention.
    """
    for arch in archs:
        for dim in dims:
            for dtype in dtypes:
                if dtype == "fp32" and arch in HALF_ONLY:
                    continue
                yield Config("blended", arch, dim, dtype)
                yield Config("word", arch, dim, dtype, even=False)
                if variants:
                    yield Config("blended", arch, dim, dtype, even=False, kept=True, columns=2)
                    yield Config("blended", arch, dim, dtype, queries=8, even=False)


def dit_configurations(archs: Iterable[str], dtypes: Iterable[str]) -> Iterator[Config]:
    """Yields what a Wan transformer launches for every combination.

    The keys of 8,192 tokens and of a text fill their blocks; 32,760 is a multiple of no block.
    """
    for arch in archs:
        for dtype in dtypes:
            layer = Config("blended", arch, DIT_DIM, dtype, aligned=True)
            yield replace(layer, queries=8192)
            yield replace(layer, queries=32760, even=False)
            yield replace(layer, queries=32760, kept=True)
            yield replace(layer, queries=6552, even=False, outside=True)  # a fifth of the rows
            yield replace(layer, queries=32760, kernel="word")


def inspect(config: Config) -> Report:
    """Compiles one configuration and returns the report of its machine code."""
    compiled, tile = compile_ahead(config)
    read = _read_amd if config.arch.startswith("gfx") else _read_nvidia
    code, registers, spills = read(compiled)
    matrix = [at for at, _, op in code if re.search(MATRIX[config.arch], op)]
    predicated = [op for _, _, op in code if re.search(rf"@!?U?P\d.*({MATRIX[config.arch]})", op)]
    copies = sum(bool(re.search(ASYNC_COPY, op)) for _, _, op in code)
    loops = [(target, at) for at, target, _ in code if target is not None and target < at]
    depths = [sum(a <= at <= b for a, b in loops) for at in matrix] or [0]
    return Report(
        config=config,
        tile=tile,
        registers=registers,
        spills=spills,
        shared=compiled.metadata.shared,
        matrix=len(matrix),
        async_copies=copies,
        outer_loops=min(depths),
        inner_loops=max(depths),
        predicated_matrix=len(predicated),
    )


def compile_ahead(config: Config) -> tuple[Any, tiles.Tile]:
    """Compiles for an architecture that need not be present; returns the code and its tile.

    Raises RuntimeError if TRITON_INTERPRET is set, for Triton then compiles nothing.
    """
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        raise RuntimeError(
            "Triton compiles nothing while it interprets: unset TRITON_INTERPRET to inspect"
        )
    import triton
    from triton.backends.compiler import GPUTarget

    dtype = DTYPES[config.dtype]
    arch = TILES_OF.get(config.arch, config.arch)
    tile = tiles.choose_tile(arch, config.dim, dtype, config.queries)
    constants = tile.arguments(config.dim, dtype) | {"EVEN": config.even, "UNIT": 8}
    options = {name: constants.pop(name) for name in tiles.LAUNCH_OPTIONS}
    target = GPUTarget("hip", config.arch, 64)
    if config.arch.startswith("sm"):
        target = GPUTarget("cuda", int(config.arch[3:]), 32)
    compiled = triton.compile(_source(config, constants), target=target, options=options)
    return compiled, tile


def _source(config: Config, constants: dict[str, Any]) -> Any:
    """Returns the kernel with its argument types and its known multiples of 16."""
    import triton

    from freemask.kernels.triton.blended import blended_kernel
    from freemask.kernels.triton.word import word_kernel

    views = ["q", "k", "v", "out"]
    if config.kernel == "blended":
        constants |= {"KEPT": int(config.kept), "COLUMNS": config.columns}
        constants |= {"OUTSIDE": int(config.outside)}
        kernel = blended_kernel
        pointers = {"weight": "*fp32", "order": "*i32", "table": "*i32"}
        views += ["q_source", "k_source", "v_source", "v_kept"]
        views += ["k_outside", "v_outside", "k_source_outside"]
    else:
        kernel = word_kernel
        pointers = {"words": "*fp32", "partial": "*fp32"}
    types: dict[str, Any] = {**pointers, "scale_log2": "fp32"}
    types |= dict.fromkeys(views, (f"*{config.dtype}", "i32", "i32", "i32"))
    types |= dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    at, aligned = kernel.arg_names.index, [["tt.divisibility", 16]]
    attrs: dict[tuple[int, ...], Any] = {(at(name), 0): aligned for name in views}
    attrs |= {(at(name),): aligned for name in pointers}
    if config.aligned:
        attrs |= {(at(name), stride): aligned for name in views for stride in (1, 2, 3)}
        known = {"queries": config.queries % 16 == 0, "keys": config.even}
        if config.kernel == "blended":
            known |= {"source_keys": config.even, "outside_keys": config.even}
        attrs |= {(at(name),): aligned for name, multiple in known.items() if multiple}
    return triton.compiler.ASTSource(kernel, signature, constants, attrs)


Line = tuple[int, int | None, str]  # address, target of a jump, instruction


def _read_nvidia(compiled: Any) -> tuple[list[Line], int, int]:
    """Returns the lines of SASS, the registers per thread, and the spilled bytes."""
    from triton import knobs

    tool = knobs.nvidia.cuobjdump.path
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        sass, usage = (
            subprocess.run(
                [tool, flag, str(cubin)], text=True, capture_output=True, check=True
            ).stdout
            for flag in ("-sass", "-res-usage")
        )
    lines = [
        (int(at, 16), _jump(op), op)
        for at, op in re.findall(r"/\*([0-9a-f]{4,})\*/\s+([^;]+);", sass)
    ]
    found = re.search(r"REG:(\d+) STACK:(\d+).*?LOCAL:(\d+)", usage)
    assert found, usage
    accesses = sum(bool(re.search(r"\b(STL|LDL)\b", op)) for _, _, op in lines)
    return lines, int(found[1]), max(accesses, int(found[2]), int(found[3]))


def _jump(op: str) -> int | None:
    found = re.search(r"BRA\S*\s+(?:\S+,\s*)*`?\(?0x([0-9a-f]+)", op)
    return int(found[1], 16) if found else None


def _read_amd(compiled: Any) -> tuple[list[Line], int, int]:
    """Returns the lines of assembly, the vector registers, and spills plus scratch bytes."""
    text = compiled.asm["amdgcn"]
    labels = {
        m[1]: i for i, line in enumerate(text.splitlines()) if (m := re.match(r"(\.\w+):", line))
    }
    lines: list[Line] = []
    for i, line in enumerate(text.splitlines()):
        jump = re.search(r"s_c?branch\S*\s+(\.\w+)", line)
        lines.append((i, labels.get(jump[1]) if jump else None, line.strip()))
    numbers = {
        name: int(value) for name, value in re.findall(r"\.(\w+(?:count|size)):\s+(\d+)", text)
    }
    spills = numbers["vgpr_spill_count"] + numbers["private_segment_fixed_size"]
    return lines, numbers["vgpr_count"], spills


HEADER = f"{'kernel':9}{'arch':8}{'dim':>4} {'dtype':6}{'rows':>6}{'keys':>7}{'BM/BN/w/s':>13}"
HEADER += f"{'regs':>6}{'spills':>7}"
HEADER += f"{'shared':>8}{'matrix':>7}{'async':>6}{'loops':>6}  verdict"


def row(report: Report) -> str:
    """Returns a report as one line of the table."""
    c, t = report.config, report.tile
    tile = f"{t.block_m}/{t.block_n}/{t.warps}/{t.stages}"
    name, keys = c.kernel + "+" * c.kept + "/" * c.outside, "even" if c.even else "uneven"
    return (
        f"{name:9}{c.arch:8}{c.dim:4} {c.dtype:6}{c.queries:6}{keys:>7}{tile:>13}"
        f"{report.registers:6}{report.spills:7}{report.shared:8}{report.matrix:7}{report.async_copies:6}"
        f"{report.outer_loops:4}-{report.inner_loops}  {'; '.join(report.faults()) or 'ok'}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; returns the exit status, 1 if a configuration has a fault."""
    parser = argparse.ArgumentParser(
        prog="python -m freemask.kernels.dev.inspect", description=__doc__
    )
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES)
    parser.add_argument("--dim", nargs="+", type=int)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES)
    parser.add_argument(
        "--all", action="store_true", help="every shipped dimension, dtype, variant"
    )
    parser.add_argument("--dit", action="store_true", help="the launches of a Wan transformer")
    parser.add_argument("--json", type=output_path, help="also write the reports to this file")
    given = parser.parse_args(arguments)
    if given.dit and (given.all or given.dim):
        parser.error("--dit stands alone: its head dimension is 128")
    archs = given.arch or (ARCHITECTURES if given.dit else tuple(tiles.HALF))
    dims = given.dim or (ALL_DIMS if given.all else DEFAULT_DIMS)
    dtypes = given.dtype or (tuple(DTYPES) if given.all else ("fp16",))
    found = configurations(archs, dims, dtypes, variants=given.all)
    if given.dit:
        found = dit_configurations(archs, given.dtype or DIT_DTYPES)
    reports = []
    print(HEADER)  # noqa: T201
    for config in found:
        reports.append(inspect(config))
        print(row(reports[-1]), flush=True)  # noqa: T201
    if given.json:
        given.json.write_text(json.dumps([asdict(report) for report in reports], indent=1))
    return int(any(report.faults() for report in reports))


if __name__ == "__main__":
    raise SystemExit(main())
