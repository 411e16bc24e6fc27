"""Compares blended and word attention with their baselines, in ratios to one plain attention.

All variants of a size run in turn, round after round. The ratios of their medians are stable where
absolute times on a shared machine are not. Memory is the peak of the bytes that a call allocates,
its output included. `freemask profile --attention --help` lists the options.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from freemask.kernels import blended_attention, word_attention
from freemask.kernels.dev import cost
from freemask.kernels.dev.cost import Size
from freemask.kernels.dev.tables import chart, floors_table, output_path, table
from freemask.kernels.dev.timing import Calls, interleave, peak_bytes, settle_allocator
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
    "cross 4096": Size(8, 8, 4096, 77, 40, text=True),
    "cross 1024": Size(8, 8, 1024, 77, 80, text=True),
    "wan self 8192": Size(1, 12, 8192, 8192, 128),  # Wan 2.1 1.3B
    "wan self 32760": Size(1, 12, 32760, 32760, 128),  # 81 frames of 832x480
    "wan cross 8192": Size(1, 12, 8192, 512, 128, text=True),
    "wan cross 32760": Size(1, 12, 32760, 512, 128, text=True),
    "wan rows 8192": Size(1, 12, 1640, 1640, 128, outside=6552),  # a fifth of the rows
    "wan rows 32760": Size(1, 12, 6552, 6552, 128, outside=26208),
    "wan 5B self 27280": Size(1, 24, 27280, 27280, 128),  # 121 frames of 1280x704
    "wan 14B self 32760": Size(1, 40, 32760, 32760, 128),
    "wan 14B cross 32760": Size(1, 40, 32760, 512, 128, text=True),
}
DEFAULT_SIZES = ("self 4096", "self 1024", "self 256", "temporal 8", "cross 4096", "cross 1024")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAP_LIMIT = 2 << 30  # bytes of one map; the eager baseline is left out beyond it


def blob_mask(size: Size, coverage: float, soft: float) -> Tensor:
    """Returns a mask `(B, Nq)` of a disc that drifts from frame to frame, with a linear soft rim.

    coverage: mean of the mask, in [0, 1]. soft: fraction of soft rows, in [0, 1].

    Temporal sequences run over the frames of a pixel, so their disc moves along the rows.
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
    """Returns random tensors `(B, H, N, D)` of edit and source, in memory `(B, N, H, D)`."""
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int) -> Tensor:
        shape = (size.batch, rows, size.heads, size.dim)
        return torch.randn(shape, generator=generator).to(device, dtype).transpose(1, 2)

    names = {"q": size.queries, "k": size.keys, "v": size.keys}
    names |= {"q_source": size.queries, "k_source": size.keys}
    if size.outside:
        names |= {"k_outside": size.outside, "v_outside": size.outside}
    return {name: draw(rows) for name, rows in names.items()}


def variants(
    size: Size, dtype: torch.dtype, device: str, coverage: float, soft: float, backend: str
) -> Calls:
    """Returns the calls to compare for one size; the first, plain attention, is the unit."""
    x = inputs(size, dtype, device)
    q, sources = x["q"], {n: x[n] for n in ("q_source", "k_source")}
    outside: dict[str, Tensor | None] = {n: x[n] for n in ("k_outside", "v_outside") if n in x}
    k, v, k_source = (  # as all but our call take them
        torch.cat([x[f"{n[0]}_outside"], x[n]], 2) if outside else x[n]
        for n in ("k", "v", "k_source")
    )
    mask = blob_mask(size, coverage, soft).to(device)
    plan, weight = MaskPlan.from_mask(mask), mask[:, None, :, None].to(dtype)

    def two_passes() -> Tensor:
        return torch.lerp(sdpa(x["q_source"], k_source, v), sdpa(q, k, v), weight)

    def eager_maps() -> Tensor:
        edit = torch.softmax(q @ k.transpose(2, 3) * size.dim**-0.5, dim=3)
        source = torch.softmax(x["q_source"] @ k_source.transpose(2, 3) * size.dim**-0.5, 3)
        return (edit * weight + source * (1 - weight)) @ v

    def blended(**values: Tensor | None) -> Tensor:
        given: dict[str, Tensor | None] = {"v": x["v"], **outside, **values}
        return blended_attention(q, x["k"], mask=plan, backend=backend, **sources, **given)  # type: ignore[arg-type]

    calls: Calls = {"plain": lambda: sdpa(q, k, v), "blended": blended, "two passes": two_passes}
    if size.map_entries * dtype.itemsize <= MAP_LIMIT:
        calls["eager maps"] = eager_maps
    if size.text:
        tokens = size.keys
        word = torch.zeros(tokens, device=device)
        word[2] = 1
        calls["word"] = lambda: word_attention(q, k, v, word_weights=word, backend=backend)
        edit = TokenEdit.replacement(torch.eye(tokens)).reweighted(torch.linspace(0.5, 2, tokens))
        values = edit.values(v).arguments()
        calls["token edit"] = lambda: blended(**values)
    return calls


def flex_attention_call(
    size: Size, dtype: torch.dtype, device: str, coverage: float
) -> Callable[[], Any]:
    """Returns the binary blend as one `flex_attention` over the keys of both branches.

    A block mask lets each row see the keys of its own branch.
    """
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


def profile(
    name: str, dtype: str, coverage: float, soft: float, *, rounds: int, backend: str,
    device: str, flex: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns one record per variant of a size: median seconds, ratio to plain, peak bytes."""
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


def main(arguments: list[str] | None = None, program: str | None = None) -> int:
    """Measures, prints the table, and writes `attention.json` and `attention.png` into --out."""
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
    parser.add_argument("--out", type=output_path, default=Path("out/profile"))
    given = parser.parse_args(arguments)
    if given.floors:
        tables = [f"{dtype}\n{floors_table(SIZES, DTYPES[dtype])}" for dtype in given.dtype]
        print("\n\n".join(tables))  # noqa: T201
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
