"""What an editor has and needs, from its configs alone: attention sites, and GPU memory.

Everything runs on the meta device, where tensors have shapes and no values: a `LiveBytes` mode adds
up what a real run would hold at once. Numbers are for one clip; what a CUDA context, cuDNN's
workspaces and fragmentation add (often about a GiB) is not in them.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from freemask.attention.fusion import steps_reading_source
from freemask.attention.hooks import AttentionCall
from freemask.config import merge
from freemask.editors.checkpoints import resolve
from freemask.editors.editor import ENCODE_BATCH, Editor
from freemask.editors.registry import ASSETS, editor_class, runtime
from freemask.settings import load_settings
from freemask.types import InputError, Site

BACKBONES = ASSETS / "backbones"  # configs of the checkpoints that people have
RELEASED_ROWS = 32**2  # the largest maps that the releases store
BATCH = 2  # branches that the backbone sees at once, of a guided step, the source replayed or not
KINDS = ("self", "cross", "temporal")


class LiveBytes(TorchDispatchMode):
    """The most that the tensors made inside hold at once, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inputs = {id_of(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and id_of(x) not in inputs | self._seen:
                self._hold(x.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def id_of(x: Tensor) -> int:
    """What two tensors over the same memory have in common."""
    return x.untyped_storage()._cdata


class FusedAttention(TorchFunctionMode):
    """Attention takes no more than its output, as a fused kernel does."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            query, values = args[0], args[2]
            return query.new_empty(*query.shape[:-1], values.shape[-1])
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Footprint:
    """Bytes of one edit.

    weights: of UNet, VAE and text encoder. denoise: what denoising holds beside them at its peak,
    with the source replayed. decode: the same of the VAE. trajectory: the inverted latents in
    float32. features: the queries and keys that `features=store` keeps. maps: what the releases
    store, in the same dtype.
    """

    weights: int
    denoise: int
    decode: int
    trajectory: int
    features: int
    maps: int

    @property
    def peak(self) -> int:
        """On the GPU, with the source replayed."""
        return self.weights + self.trajectory + max(self.denoise, self.decode)


def sites_by_kind(editor: Editor, size: tuple[int, int]) -> dict[str, Counter[tuple[int, int]]]:
    """How many sites of every kind there are at each latent resolution, finest first."""
    sites = editor.sites(editor.latent_size(size))
    return {
        kind: Counter(sorted((s.resolution for s in sites if s.kind == kind), reverse=True))
        for kind in KINDS
    }


def footprint(
    editor: Editor,
    *,
    frames: int = 8,
    size: tuple[int, int] = (512, 512),
    steps: int = 50,
    task: str = "shape",
) -> Footprint:
    """The memory of one guided edit with the settings of a task.

    editor: of `Editor.blueprint`, or a loaded one. size: `(H, W)` pixels. Raises `InputError` for a
    size that the VAE does not divide.
    """
    settings = load_settings(task)
    per_step, maps = _attention_sizes(editor, frames, size)
    h, w = editor.latent_size(size)
    latents = editor.vae.config.latent_channels * frames * h * w * 4
    return Footprint(
        weights=sum(map(weight_bytes, (editor.unet, editor.vae, editor.text_encoder))),
        denoise=_denoise_peak(editor, BATCH, frames, size),
        decode=_decode_peak(editor, frames, size),
        trajectory=(steps + 1) * latents,
        features=sum(
            per_step[site] * len(steps_reading_source(site, settings, steps)) for site in per_step
        ),
        maps=sum(maps.values()) * steps,
    )


def weight_bytes(model: nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))


def _inputs(editor: Editor, branches: int, frames: int, size: tuple[int, int]) -> tuple[Any, ...]:
    """What `Editor.predict` takes, for some branches."""
    channels, device = editor.vae.config.latent_channels, editor.device
    latents = torch.empty(branches, channels, frames, *editor.latent_size(size), device=device)
    tokens = editor.text_encoder.config.max_position_embeddings
    width = editor.text_encoder.config.hidden_size
    text = torch.empty(branches, tokens, width, device=device, dtype=editor.dtype)
    return latents, 1, text


@torch.inference_mode(False)
@torch.no_grad()
def _denoise_peak(editor: Editor, branches: int, frames: int, size: tuple[int, int]) -> int:
    inputs = _inputs(editor, branches, frames, size)
    with FusedAttention(), LiveBytes() as live:
        editor.predict(*inputs)
    return live.peak


@torch.inference_mode(False)
@torch.no_grad()
def _decode_peak(editor: Editor, frames: int, size: tuple[int, int]) -> int:
    """Of the VAE's decoder, which takes `ENCODE_BATCH` frames at a time."""
    batch = min(frames, ENCODE_BATCH)
    latents = torch.empty(
        batch, editor.vae.config.latent_channels, *editor.latent_size(size),
        device=editor.device, dtype=editor.dtype,
    )  # fmt: skip
    with FusedAttention(), LiveBytes() as live:
        editor.vae.decode(latents)
    return live.peak


@torch.no_grad()
def _attention_sizes(
    editor: Editor, frames: int, size: tuple[int, int]
) -> tuple[dict[Site, int], dict[Site, int]]:
    """Returns bytes of one step of one branch, by site: queries and keys; the released maps."""
    features: dict[Site, int] = {}
    maps: dict[Site, int] = {}

    def attend(call: AttentionCall) -> Tensor:
        features[call.site] = call.q.nbytes + call.k.nbytes
        maps[call.site] = _released_map(call)
        return call.q.new_empty(call.q.shape)

    with editor.hooked(editor.sites(editor.latent_size(size)), attend):
        editor.predict(*_inputs(editor, 1, frames, size))
    return features, maps


def _released_map(call: AttentionCall) -> int:
    """Bytes of the map that the releases store of a call."""
    site: Site = call.site
    if site.kind != "temporal" and math.prod(site.resolution) > RELEASED_ROWS:
        return 0
    seen = 1 if call.frame_table is None else call.frame_table.shape[1]
    batch, heads, queries = call.q.shape[:3]
    return batch * heads * queries * call.k.shape[2] * seen * call.q.element_size()


def editors_of(
    folder: Path, names: Sequence[str], dtype: torch.dtype, options: Mapping[str, Any]
) -> tuple[dict[str, Editor], dict[str, str]]:
    """Blueprints of the editors that load a folder, and why the others do not."""
    loaded, refused = {}, {}
    for name in names:
        kind = editor_class(name)
        try:
            chosen: Any = merge(kind.Options, OmegaConf.create(dict(options)), {})
            loaded[name] = kind.blueprint(folder, dtype, chosen)
        except InputError as error:
            refused[name] = str(error)
    return loaded, refused


def describe_sites(editor: Editor, size: tuple[int, int]) -> str:
    """An editor's attention sites, a line for each kind."""
    lines = []
    for kind, counts in sites_by_kind(editor, size).items():
        levels = ", ".join(f"{count} at {h}x{w}" for (h, w), count in counts.items())
        lines.append(f"  {kind:<9}{sum(counts.values()):>4}  {levels}".rstrip())
    return "\n".join(lines)


def memory_table(rows: Iterable[tuple[str, Footprint]]) -> str:
    """Footprints in GiB, a line each."""
    heads = ("weights", "denoise", "decode", "peak", "trajectory", "features", "released maps")
    widths = [max(len(head), 7) + 2 for head in heads]
    lines = [f"{'GiB':<30}" + "".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True))]
    for name, f in rows:
        figures = (f.weights, f.denoise, f.decode, f.peak, f.trajectory, f.features, f.maps)
        cells = zip(figures, widths, strict=True)
        lines.append(f"{name:<30}" + "".join(f"{x / 2**30:>{w}.2f}" for x, w in cells))
    return "\n".join(lines)


def locate(checkpoint: str | Path) -> Path:
    """A checkpoint's folder, or what is shipped under that name ("sd-1.5", "sprites-sd", ...).

    Raises `InputError` for neither.
    """
    shipped = [root / str(checkpoint) for root in (BACKBONES, ASSETS)]
    found = [path for path in shipped if (path / "unet").is_dir()]
    return found[0] if found else resolve(checkpoint)


def report(
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
    """Which editors load a checkpoint, with what sites; or the memory that an edit takes.

    checkpoint: see `locate`; None stands for all shipped configs. Raises `InputError` when no
    editor loads it.
    """
    folders = [locate(checkpoint)] if checkpoint else sorted(BACKBONES.iterdir())
    precision = runtime("cpu", dtype)[1]
    sites: list[str] = []
    rows: list[tuple[str, Footprint]] = []
    refused: dict[str, str] = {}
    for folder in folders:
        loaded, refused = editors_of(folder, editors, precision, options or {})
        for name, editor in loaded.items():
            title = f"{name} on {folder.name}"
            if memory:
                rows.append((title, footprint(editor, frames=frames, size=size, steps=steps)))
            else:
                sites.append(f"{title}\n{describe_sites(editor, size)}")
    if not rows and not sites:
        raise InputError("; ".join(refused.values()))
    if memory:
        what = f"{frames} frames of {size[0]}x{size[1]}, {steps} steps, {dtype}"
        return f"{what}\n{memory_table(rows)}"
    return "\n".join([*sites, *(f"{name}: no, {reason}" for name, reason in refused.items())])
