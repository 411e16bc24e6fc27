"""Reports which editors load a checkpoint, with what attention sites and with what memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from freemask.editors.checkpoints import resolve
from freemask.editors.editor import Editor
from freemask.editors.registry import ASSETS, EDITORS, editor_class, runtime, typed_options
from freemask.profiling.footprint import Footprint, footprint
from freemask.types import InputError

BACKBONES = ASSETS / "backbones"  # configs of well-known checkpoints, without weights
KINDS = ("self", "cross", "temporal")


def checkpoint_report(
    checkpoint: str | None,
    *,
    editors: Sequence[str],
    memory: bool = False,
    frames: int = 8,
    size: tuple[int, int] = (512, 512),
    steps: int = 50,
    dtype: str = "float16",
    options: Mapping[str, Any] | None = None,
) -> str:
    """Returns which editors load a checkpoint and its sites, or the memory of an edit with each.

    checkpoint: see `find_checkpoint`; None for all shipped configs.
    editors: names of the editors to try.
    memory: whether to report memory instead of sites.
    frames, size, steps: frames, `(H, W)` in pixels and steps of the edit.
    dtype: name of the dtype of the weights.
    options: options of the editors.

    Raises `InputError` if no editor loads the checkpoint.
    """
    folders = [find_checkpoint(checkpoint)] if checkpoint else sorted(BACKBONES.iterdir())
    precision = runtime("cpu", dtype)[1]
    sites: list[str] = []
    rows: list[tuple[str, Footprint]] = []
    refused: dict[str, str] = {}
    for folder in folders:
        loaded, refused = load_blueprints(folder, editors, precision, options or {})
        for name, editor in loaded.items():
            title = f"{name} on {folder.name}"
            if memory:
                rows.append((title, footprint(editor, frames=frames, size=size, steps=steps)))
            else:
                sites.append(f"{title}\n{site_table(editor, size)}")
    if not rows and not sites:
        raise InputError("; ".join(refused.values()))
    if memory:
        edit = f"{frames} frames of {size[0]}x{size[1]}, {steps} steps, {dtype}"
        return f"{edit}\n{footprint_table(rows)}"
    return "\n".join([*sites, *(f"{name}: no, {reason}" for name, reason in refused.items())])


def find_checkpoint(checkpoint: str | Path) -> Path:
    """Returns the folder of a checkpoint.

    checkpoint: a shipped name ("sd-1.5", "sprites-sd", ...), a folder or a hub id, whose configs
        alone are downloaded.

    Raises `InputError` if it is none of these.
    """
    shipped = [root / str(checkpoint) for root in (BACKBONES, ASSETS)]
    found = [path for path in shipped if path.is_dir()]
    parts = dict.fromkeys(part for kind in EDITORS.values() for part in kind.layout.parts)
    return found[0] if found else resolve(checkpoint, parts=tuple(parts), configs_only=True)


def load_blueprints(
    folder: Path, names: Sequence[str], dtype: torch.dtype, options: Mapping[str, Any]
) -> tuple[dict[str, Editor], dict[str, str]]:
    """Returns the editors that load a folder, on the meta device, and why the others do not.

    Both are by name; only configs are read.
    """
    loaded, refused = {}, {}
    for name in names:
        kind = editor_class(name)
        try:
            loaded[name] = kind.blueprint(folder, dtype, typed_options(kind, options))
        except InputError as error:
            refused[name] = str(error)
    return loaded, refused


def sites_by_kind(editor: Editor, size: tuple[int, int]) -> dict[str, Counter[tuple[int, int]]]:
    """Counts the sites of each kind by latent resolution `(h_l, w_l)`, finest first."""
    sites = editor.sites(editor.latent_size(size))
    return {
        kind: Counter(sorted((s.resolution for s in sites if s.kind == kind), reverse=True))
        for kind in KINDS
    }


def site_table(editor: Editor, size: tuple[int, int]) -> str:
    """Formats the attention sites of an editor, a line for each kind."""
    lines = []
    for kind, counts in sites_by_kind(editor, size).items():
        levels = ", ".join(f"{count} at {h}x{w}" for (h, w), count in counts.items())
        lines.append(f"  {kind:<9}{sum(counts.values()):>4}  {levels}".rstrip())
    return "\n".join(lines)


def footprint_table(rows: Iterable[tuple[str, Footprint]]) -> str:
    """Formats footprints in GiB, a line for each title."""
    heads = (
        "weights",
        "text",
        "denoise",
        "decode",
        "peak",
        "trajectory",
        "features",
        "released maps",
    )
    widths = [max(len(head), 7) + 2 for head in heads]
    lines = [f"{'GiB':<30}" + "".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True))]
    for name, f in rows:
        figures = (f.weights, f.text, f.denoise, f.decode, f.peak, f.trajectory, f.features, f.maps)
        cells = zip(figures, widths, strict=True)
        lines.append(f"{name:<30}" + "".join(f"{x / 2**30:>{w}.2f}" for x, w in cells))
    return "\n".join(lines)
