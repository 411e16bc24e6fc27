"""Blended and word attention against their baselines, in ratios to one plain attention.

All variants of a size run in turn, round after round, and the medians are compared: machines are
shared and noisy, ratios inside one interleaved run are not. Memory is the peak of what a call
allocates, its output included. `python tools/profile_attention.py --help` for the choices.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from freemask.kernels import blended_attention, word_attention
from freemask.kernels.dev import cost
from freemask.kernels.dev.cost import Size
from freemask.kernels.mask_plan import MaskPlan
from freemask.kernels.token_edit import TokenEdit

SIZES = {
    "self 4096": Size(8, 8, 4096, 4096, 40),
    "self 1024": Size(8, 8, 1024, 1024, 80),
    "self 256": Size(8, 8, 256, 256, 160),
    "self 64": Size(8, 8, 64, 64, 160),
    "sparse-causal 4096": Size(8, 8, 4096, 8192, 40),
    "sparse-causal 1024": Size(8, 8, 1024, 2048, 80),
    "sparse-causal 256": Size(8, 8, 256, 512, 160),
    "temporal 8": Size(4096, 8, 8, 8, 40),
    "temporal 24": Size(4096, 8, 24, 24, 40),
    "cross 4096": Size(8, 8, 4096, 77, 40),
    "cross 1024": Size(8, 8, 1024, 77, 80),
    "dit 8192": Size(1, 24, 8192, 8192, 128),
    "dit 32760": Size(1, 24, 32760, 32760, 128),
}
DEFAULT_SIZES = ("self 4096", "self 1024", "self 256", "temporal 8", "cross 4096", "cross 1024")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TICKS = (0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 200)  # of the chart
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt
MAP_LIMIT = 2 << 30  # bytes of one map beyond which the eager baseline is left out
Calls = dict[str, Callable[[], Any]]


def blob_mask(size: Size, coverage: float, soft: float) -> Tensor:
    """`(B, Nq)`: one disc that drifts from frame to frame, with a linear rim of soft rows.

    Temporal sequences run over frames at each pixel, so their disc moves along the rows.
    """
    temporal = size.batch > size.queries
    frames, pixels = (size.queries, size.batch) if temporal else (size.batch, size.queries)
    width = max(1, round(pixels**0.5))
    y, x = (torch.arange(pixels) // width) / width, (torch.arange(pixels) % width) / width
    shift = torch.linspace(-0.1, 0.1, frames)[:, None]
    distance = (y - 0.5) ** 2 + (x - 0.5 - shift) ** 2
    rank = distance.argsort(1).argsort(1) / pixels  # 0 at the centre, uniform: exact coverage
    rim = max(soft, 1e-9)
    mask = ((coverage + rim / 2 - rank) / rim).clamp(0, 1) if soft else (rank < coverage).float()
    return mask.t().contiguous() if temporal else mask


def inputs(size: Size, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """Random queries, keys and values of edit and source, laid out `(B, N, H, D)`."""
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int) -> Tensor:
        shape = (size.batch, rows, size.heads, size.dim)
        return torch.randn(shape, generator=generator).to(device, dtype).transpose(1, 2)

    names = {"q": size.queries, "k": size.keys, "v": size.keys}
    names |= {"q_source": size.queries, "k_source": size.keys}
    return {name: draw(rows) for name, rows in names.items()}


def variants(
    size: Size, dtype: torch.dtype, device: str, coverage: float, soft: float, backend: str
) -> Calls:
    """What runs for one size; the first, plain attention, is the unit."""
    x = inputs(size, dtype, device)
    q, k, v, sources = x["q"], x["k"], x["v"], {n: x[n] for n in ("q_source", "k_source")}
    mask = blob_mask(size, coverage, soft).to(device)
    plan, weight = MaskPlan.from_mask(mask), mask[:, None, :, None].to(dtype)

    def two_passes() -> Tensor:
        return torch.lerp(sdpa(x["q_source"], x["k_source"], v), sdpa(q, k, v), weight)

    def eager_maps() -> Tensor:
        edit = torch.softmax(q @ k.transpose(2, 3) * size.dim**-0.5, dim=3)
        source = torch.softmax(x["q_source"] @ x["k_source"].transpose(2, 3) * size.dim**-0.5, 3)
        return (edit * weight + source * (1 - weight)) @ v

    def blended(**values: Tensor | None) -> Tensor:
        values = {"v": v, **values}
        return blended_attention(q, k, mask=plan, backend=backend, **sources, **values)  # type: ignore[arg-type]

    calls: Calls = {"plain": lambda: sdpa(q, k, v), "blended": blended, "two passes": two_passes}
    if size.map_entries * dtype.itemsize <= MAP_LIMIT:
        calls["eager maps"] = eager_maps
    if size.keys == 77:
        word = torch.zeros(77, device=device).index_fill_(0, torch.tensor([2], device=device), 1)
        calls["word"] = lambda: word_attention(q, k, v, word_weights=word, backend=backend)
        edit = TokenEdit.replacement(torch.eye(77)).reweighted(torch.linspace(0.5, 2, 77))
        values = edit.values(v).arguments()
        calls["token edit"] = lambda: blended(**values)
    return calls


def flex_attention_call(
    size: Size, dtype: torch.dtype, device: str, coverage: float
) -> Callable[[], Any]:
    """The binary blend as one `flex_attention`: both keys packed, rows see their half."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    x = inputs(size, dtype, device)
    inside = blob_mask(size, coverage, 0).to(device) == 1
    q = torch.where(inside[:, None, :, None], x["q"], x["q_source"])
    k, v = torch.cat([x["k"], x["k_source"]], 2), torch.cat([x["v"], x["v"]], 2)

    def sees(b: Tensor, h: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return inside[b, row] == (key < size.keys)

    blocks = create_block_mask(sees, size.batch, None, size.queries, 2 * size.keys, device=device)
    compiled = torch.compile(flex_attention)
    return lambda: compiled(q, k, v, block_mask=blocks)


def interleave(calls: Calls, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of every call in every round.

    Each call runs once untimed before its turn, for another variant leaves caches and allocator in
    a state that is its own: one that frees large maps makes the next one fault its pages in anew.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            times[name].append(time.perf_counter() - start)
    return times


def settle_allocator() -> None:
    """Have glibc keep what is freed, as PyTorch's allocator does on a GPU.

    Otherwise it returns large chunks to the system, which ones depends on what was freed before,
    and a call pays for the page faults of its temporaries or not: up to 15% at the small sizes.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust:
        adjust(M_TRIM_THRESHOLD, 2**31 - 1)
        adjust(M_MMAP_MAX, 0)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(call: Callable[[], Any], device: str) -> int:
    """The most that a call holds at once beyond what was there before, its output included."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    held = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def profile(
    name: str, dtype: str, coverage: float, soft: float, *, rounds: int, backend: str,
    device: str, flex: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """One record per variant of one size: median seconds, ratio to plain, peak bytes."""
    size, kind = SIZES[name], DTYPES[dtype]
    with torch.inference_mode():
        calls = variants(size, kind, device, coverage, soft, backend)
        if flex:
            calls["flex attention"] = flex_attention_call(size, kind, device, coverage)
        times = interleave(calls, rounds, device)
        memory = {variant: peak_bytes(call, device) for variant, call in calls.items()}
    medians = {variant: statistics.median(t) for variant, t in times.items()}
    work = cost.blend(size, kind, soft=soft)
    floors = {gpu: work.floor(peaks) for gpu, peaks in cost.GPUS.items()}
    present = torch.cuda.get_device_name() if device == "cuda" else ""
    floor = next((seconds for gpu, seconds in floors.items() if gpu in present), None)
    output = size.batch * size.heads * size.queries * size.dim * kind.itemsize
    return [
        {
            "size": name, "dtype": dtype, "coverage": coverage, "soft": soft, "variant": variant,
            "threads": torch.get_num_threads(), "device": device, "seconds": medians[variant],
            "ratio": medians[variant] / medians["plain"], "peak_bytes": memory[variant],
            "peak_over_output": memory[variant] / output, "floor_seconds": floors,
            "over_floor": medians[variant] / floor if floor else None,
        }
        for variant in calls
    ]  # fmt: skip


def table(records: list[dict[str, Any]]) -> str:
    """The records as text, one line each; `/ floor` where the cost model knows the GPU."""
    head = f"{'size':20}{'dtype':6}{'mask':>6}{'soft':>6}  {'variant':15}"
    lines = [f"{head}{'ms':>10}{'ratio':>8}{'mem/out':>9}{'/ floor':>9}"]
    lines += [
        f"{r['size']:20}{r['dtype']:6}{r['coverage']:6.0%}{r['soft']:6.0%}  {r['variant']:15}"
        f"{r['seconds'] * 1e3:10.2f}{r['ratio']:8.2f}{r['peak_over_output']:9.2f}"
        f"{r['over_floor'] or math.nan:9.2f}"
        for r in records
    ]
    return "\n".join(lines)


def floors_table(dtype: str) -> str:
    """The cost model of every size: work, floors, and what eager maps would move."""
    head = f"{'size':20}{'GFLOP':>10}{'MB':>9}{'eager MB':>10}"
    lines = [head + "".join(f"{gpu + ' ms':>10}{'bound':>14}{'eager ms':>10}" for gpu in cost.GPUS)]
    for name, size in SIZES.items():
        work = cost.blend(size, DTYPES[dtype])
        line = f"{name:20}{work.flop / 1e9:10.1f}"
        line += f"{work.memory / 1e6:9.1f}{work.eager_memory / 1e6:10.0f}"
        for gpu in cost.GPUS.values():
            floors = work.floors(gpu)
            eager = floors.pop("eager") * 1e3
            bound = max(floors, key=floors.__getitem__)
            line += f"{work.floor(gpu) * 1e3:10.4f}{bound:>14}{eager:10.3f}"
        lines.append(line)
    return "\n".join(lines)


def chart(records: list[dict[str, Any]], path: Path) -> None:
    """A PNG of the ratios to one plain attention, on a logarithmic axis."""
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


def main(arguments: list[str] | None = None, program: str | None = None) -> int:
    """Measure, print the table, write `attention.json` and `attention.png` into --out."""
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=DEFAULT_SIZES)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=("fp32", "bf16"))
    parser.add_argument("--coverage", nargs="+", type=float, default=(0.3,))
    parser.add_argument("--soft", type=float, default=0.0, help="fraction of soft rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--flex", action="store_true", help="also compile and run flex_attention")
    parser.add_argument("--floors", action="store_true", help="print the cost model and stop")
    parser.add_argument("--out", type=Path, default=Path("out/profile"))
    given = parser.parse_args(arguments)
    if given.floors:
        print("\n\n".join(f"{dtype}\n{floors_table(dtype)}" for dtype in given.dtype))  # noqa: T201
        return 0
    if given.threads:
        torch.set_num_threads(given.threads)
    settle_allocator()
    records: list[dict[str, Any]] = []
    for name in given.size:
        for dtype in given.dtype:
            for coverage in given.coverage:
                records += profile(
                    name, dtype, coverage, given.soft, rounds=given.rounds, flex=given.flex,
                    backend=given.backend, device=given.device,
                )  # fmt: skip
    print(table(records))  # noqa: T201
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "attention.json").write_text(json.dumps(records, indent=1))
    chart(records, given.out / "attention.png")
    return 0
