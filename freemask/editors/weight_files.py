"""Chooses the files that hold the weights of a part, among the names in its folder.

A part may hold its weights several times: as safetensors and as torch files (`bin`), in several
*variants* (`model.fp16.safetensors`, `model.non_ema.bin`), whole or in shards with an index. One
rule serves folders and listings of the hub:

    the variant that was asked for, else the one that suits the dtype, else the only one there is;
    of one variant, safetensors before bin
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from freemask.types import InputError

STEMS = {"safetensors": "model", "bin": "pytorch_model"}  # in transformers' parts
DIFFUSERS_STEM = "diffusion_pytorch_model"
BACKBONES = ("unet", "transformer", "transformer_2")
TRANSFORMERS_PARTS = ("text_encoder",)
PREFERRED: dict[torch.dtype, tuple[str | None, ...]] = {  # variants by dtype, best first
    torch.float32: (None, "fp32", "fp16", "bf16"),
    torch.float16: ("fp16", None, "fp32", "bf16"),
    torch.bfloat16: ("bf16", "fp16", None, "fp32"),
}
FILE = re.compile(
    r"(?P<stem>diffusion_pytorch_model|pytorch_model|model)(\.(?P<variant>\w+))??"
    r"(-(?P<shard>\d+)-of-(?P<shards>\d+))?(\.(?P<late>\w+))?\.(?P<format>safetensors|bin)"
)
INDEX = re.compile(
    r"(?P<stem>diffusion_pytorch_model|pytorch_model|model)\.(?P<format>safetensors|bin)\.index"
    r"(\.(?P<variant>\w+))?\.json"
)


@dataclass(frozen=True)
class WeightFiles:
    """One set of weights of a part.

    variant: its name, as in `model.fp16.safetensors`; None for the plain one.
    format: "safetensors" or "bin".
    files: names of the files of weights, ascending.
    index: name of the index of shards, or None.
    """

    variant: str | None
    format: str
    files: tuple[str, ...]
    index: str | None = None


def find_weights(names: Iterable[str], part: str) -> list[WeightFiles]:
    """Returns the complete sets of weights among the names in a part's folder.

    part: name of the part, such as "unet"; "" is a model at the root.
    """
    groups: dict[tuple[str | None, str], dict[str, int]] = {}
    indices: dict[tuple[str | None, str], str] = {}
    for name in sorted(names):
        for pattern in (INDEX, FILE):
            match = pattern.fullmatch(name)
            if match and match["stem"] in _stems(part, match["format"]):
                found = match.groupdict()
                key = (found["variant"] or found.get("late"), match["format"])
                if pattern is INDEX:
                    indices[key] = name
                else:
                    groups.setdefault(key, {})[name] = int(found["shards"] or 0)
    return [
        WeightFiles(*key, *chosen)
        for key, files in groups.items()
        if (chosen := _complete(files, indices.get(key)))
    ]


def _complete(
    files: dict[str, int], index: str | None
) -> tuple[tuple[str, ...], str | None] | None:
    """Returns a whole file, or else all shards with their index; None if neither is complete."""
    whole = [name for name, shards in files.items() if not shards]
    if whole:
        return (whole[0],), None
    shards = max(files.values())
    return (tuple(files), index) if index and len(files) == shards else None


def _stems(part: str, format: str) -> tuple[str, ...]:
    """Returns the stems of a part's files; at the root lies a model of either library."""
    if part == "":
        return DIFFUSERS_STEM, STEMS[format]
    return (STEMS[format] if part in TRANSFORMERS_PARTS else DIFFUSERS_STEM,)


def choose_weights(
    names: Iterable[str],
    part: str,
    *,
    dtype: torch.dtype,
    variant: str | None = None,
    where: str,
) -> WeightFiles:
    """Returns the set of weights to load, by the rule of this file.

    names: names in the part's folder.
    part: name of the part, such as "unet".
    dtype: what the backbone computes in.
    variant: the variant that was asked for. A VAE or text encoder without it takes the default.
    where: the folder, for messages.

    Raises `InputError` for a part without weights, for a backbone without the variant that was
    asked for, and when several variants are there and none of them suits the dtype.
    """
    found = find_weights(names, part)
    if not found:
        stems = {f"{stem}.{format}" for format in STEMS for stem in _stems(part, format)}
        raise InputError(
            f"{where} has no complete weights; looked for {' and '.join(sorted(stems))}, their "
            "variants and their shards; download the folder again"
        )
    there = sorted({one.variant or "" for one in found})
    shown = ", ".join(name or "(none)" for name in there)
    if variant and variant not in there and part in BACKBONES:
        raise InputError(f"{where} has no variant {variant!r}; its variants are: {shown}")
    order = (*([variant] if variant else []), *PREFERRED.get(dtype, PREFERRED[torch.float32]))
    chosen = next((name for name in order if (name or "") in there), None)
    if chosen is None and "" not in there:
        if len(there) > 1:
            raise InputError(f"{where} has several variants: {shown}; choose one with --variant")
        chosen = there[0]
    sets = {one.format: one for one in found if one.variant == chosen}
    return sets.get("safetensors") or sets["bin"]
