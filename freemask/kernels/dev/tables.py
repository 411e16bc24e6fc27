"""Formats the records of the benchmark as text and charts, and finds the paths of outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from freemask.kernels.dev import cost
from freemask.kernels.dev.cost import Size

TICKS = (0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 200)  # of the chart


def output_path(text: str) -> Path:
    """Returns the path of an output, with `~` as the home folder."""
    return Path(text).expanduser()


def table(records: list[dict[str, Any]]) -> str:
    """Returns the records as text, one line each; `/ floor` if the cost model knows the GPU."""
    head = f"{'size':20}{'dtype':6}{'mask':>6}{'soft':>6}  {'variant':15}"
    lines = [f"{head}{'ms':>10}{'ratio':>8}{'mem/out':>9}{'/ floor':>9}"]
    lines += [
        f"{r['size']:20}{r['dtype']:6}{r['coverage']:6.0%}{r['soft']:6.0%}  {r['variant']:15}"
        f"{r['seconds'] * 1e3:10.2f}{r['ratio']:8.2f}{r['peak_over_output']:9.2f}"
        f"{r['over_floor'] or math.nan:9.2f}"
        for r in records
    ]
    return "\n".join(lines)


def floors_table(sizes: Mapping[str, Size], dtype: torch.dtype) -> str:
    """Returns the cost model of every size: work, floors, and memory and traffic of eager maps.

    `map MiB` is the memory of one map of all heads; a blend of maps needs two.
    """
    head = f"{'size':20}{'GFLOP':>10}{'MB':>9}{'map MiB':>9}{'eager MB':>10}"
    lines = [head + "".join(f"{gpu + ' ms':>10}{'bound':>14}{'eager ms':>10}" for gpu in cost.GPUS)]
    for name, size in sizes.items():
        work = cost.blend(size, dtype)
        line = f"{name:20}{work.flop / 1e9:10.1f}"
        map_bytes = size.map_entries * dtype.itemsize
        line += f"{work.memory / 1e6:9.1f}{map_bytes / 2**20:9.0f}{work.eager_memory / 1e6:10.0f}"
        for gpu in cost.GPUS.values():
            floors = work.floors(gpu)
            eager = floors.pop("eager") * 1e3
            bound = max(floors, key=floors.__getitem__)
            line += f"{work.floor(gpu) * 1e3:10.4f}{bound:>14}{eager:10.3f}"
        lines.append(line)
    return "\n".join(lines)


def chart(records: list[dict[str, Any]], path: Path) -> None:
    """Draws a PNG of the ratios to one plain attention, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys(f"{r['size']}\n{r['dtype']} {r['coverage']:.0%}" for r in records))
    names = list(dict.fromkeys(r["variant"] for r in records if r["variant"] != "plain"))
    figure, axes = plt.subplots(figsize=(max(6, 1.3 * len(groups)), 4), layout="constrained")
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        chosen = [r for r in records if r["variant"] == name]
        at = [groups.index(f"{r['size']}\n{r['dtype']} {r['coverage']:.0%}") for r in chosen]
        axes.bar([x + i * width for x in at], [r["ratio"] for r in chosen], width, label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    most = max((r["ratio"] for r in records), default=1)
    ticks = [tick for tick in TICKS if tick <= most * 1.5]
    axes.set(yscale="log", ylabel="time / plain attention", xticks=range(len(groups)))
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xticklabels(groups, fontsize=7)
    axes.grid(axis="y", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=7, loc="outside upper center", ncols=len(names), frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
