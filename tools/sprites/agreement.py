"""Measures how far masks and costs without labels agree with the true ones, on sprites.

    python -m tools.sprites.agreement --editor zeroscope --clips 24 --steps 20

Each half of the clips is masked with the codebook of the other half. It prints the table "Without
labels" of docs/masks-and-mmc.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from freemask.calibration.consensus_label import consensus_label
from freemask.calibration.mmc import Calibration, ClipCost
from freemask.data.clips import FRAMES, SIZE, CaptionedClip, load_clips, sprites_clips
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.evaluation.metrics import mean_iou, paired_interval
from freemask.masks.build import make_masks
from freemask.masks.codebook import Codebook
from freemask.masks.selection import select
from freemask.progress import show_progress
from freemask.sampling.inversion import invert
from freemask.settings.presets import load_settings
from freemask.settings.sections import MaskSettings
from freemask.types import WordMaps

PRESET = load_settings("shape").mask
MASKS = {  # name -> settings, and whose codebook they take
    "consensus": (replace(PRESET, policy="consensus"), ""),
    "codebook": (PRESET, "true"),
    "codebook without labels": (PRESET, "unlabelled"),
    "all maps, refined": (replace(PRESET, policy="naive", average="arithmetic"), ""),
    "released sites, refined": (replace(PRESET, sites="released", policy="time_agnostic"), ""),
}


@dataclass(frozen=True, eq=False)
class MeasuredClip:
    """A clip with the maps of its word.

    maps: the maps at every cross site and timestep.
    costs: its cost against the true mask ("true") and against what the maps agree on
        ("unlabelled").
    """

    clip: CaptionedClip
    maps: WordMaps
    costs: Mapping[str, ClipCost]


def measure(editor: Editor, count: int, steps: int) -> list[MeasuredClip]:
    """Returns held-out clips, inverted and measured."""
    frames = editor.latent_time.padded(FRAMES)
    measured, progress = [], show_progress()
    for clip in load_clips(sprites_clips(count, size=SIZE, frames=frames)):
        inversion = invert(
            editor, clip.video, clip.prompt, words=clip.word, steps=steps, progress=progress
        )
        maps = inversion.word_maps["source"]
        assert clip.mask is not None
        labels = {
            "true": torch.from_numpy(clip.mask),
            "unlabelled": consensus_label(maps, clip.video),
        }
        costs = {name: ClipCost.measure(maps, label) for name, label in labels.items()}
        measured.append(MeasuredClip(clip, maps, costs))
    return measured


def codebook_of(clips: Sequence[MeasuredClip], kind: str) -> Codebook:
    """Returns the codebook of clips.

    kind: "true" or "unlabelled".
    """
    calibration = Calibration()
    for measured in clips:
        calibration.add(measured.costs[kind])
    return calibration.codebook(editor="", checkpoint="", data="")


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Spearman's correlation of two lists, in [-1, 1]."""
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (a, b)])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def mask_scores(
    editor: Editor, clips: Sequence[MeasuredClip], others: Sequence[MeasuredClip]
) -> dict[str, list[float]]:
    """Returns the mIoU of each kind of mask on clips.

    others: the clips that the codebooks come from.
    """
    codebooks = {kind: codebook_of(others, kind) for kind in ("true", "unlabelled")}
    scores: dict[str, list[float]] = {name: [] for name in MASKS}
    for measured in clips:
        for name, (settings, kind) in MASKS.items():
            scores[name].append(mask_score(editor, measured, settings, codebooks.get(kind)))
    return scores


def mask_score(
    editor: Editor, measured: MeasuredClip, settings: MaskSettings, codebook: Codebook | None
) -> float:
    """Returns the mIoU of a clip's mask with its true mask, in [0, 1]."""
    maps, clip = measured.maps, measured.clip
    sites = tuple(maps.maps)
    released = editor.released_sites(sites) if settings.sites == "released" else ()
    selection = select(codebook, settings, sites, maps.timesteps, released=released)
    masks = make_masks({"source": maps}, selection, settings, clip.video)
    assert clip.mask is not None
    return mean_iou(masks.values[0].numpy(), clip.mask)


def report(editor: Editor, clips: Sequence[MeasuredClip]) -> list[str]:
    """Returns the lines of the table."""
    lmmc = {kind: codebook_of(clips, kind).lmmc for kind in ("true", "unlabelled")}
    alone = [
        rank_correlation(*(codebook_of([clip], kind).lmmc for kind in ("true", "unlabelled")))
        for clip in clips
    ]
    lines = [
        f"rank correlation of {len(lmmc['true'])} sites: {rank_correlation(*lmmc.values()):.2f}; "
        f"on one clip: mean {np.mean(alone):.3f}, least {min(alone):.3f}"
    ]
    parts = [mask_scores(editor, *pair) for pair in halves(clips)]
    scores = {name: np.array(parts[0][name] + parts[1][name]) for name in MASKS}
    for name, values in scores.items():
        mean, low, high = paired_interval(scores["consensus"], values)
        worst = f"{values.min():.2f}"
        lines.append(
            f"mIoU {values.mean():.3f}, worst {worst}; consensus ahead by {mean:+.3f} "
            f"[{low:+.3f}, {high:+.3f}]  {name}"
        )
    return lines


def halves(clips: Sequence[MeasuredClip]) -> list[tuple[Sequence[MeasuredClip], ...]]:
    """Returns each half of the clips, followed by the other half."""
    return [(clips[::2], clips[1::2]), (clips[1::2], clips[::2])]


def print_table(
    description: str | None, editor: str, lines: Callable[[Editor, int, int], Sequence[str]]
) -> None:
    """Reads the options of a table and prints it.

    description: of the command.
    editor: name of the editor, unless --editor says otherwise.
    lines: returns the table's lines for an editor, a number of clips and one of steps.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--editor", default=editor, help="its demo checkpoint is measured")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    for line in lines(load_editor(options.editor, device="cpu"), options.clips, options.steps):
        print(line)  # noqa: T201


def main() -> None:
    """Measures and prints."""
    print_table(__doc__, "zeroscope", lambda editor, *size: report(editor, measure(editor, *size)))


if __name__ == "__main__":
    main()
