"""A calibration: clips with their masks are inverted and measured, one at a time.

    sources -> measure_clip, for each -> codebook.json, .png, .svg

While it runs, what is measured lies in `codebook.parts/`; an interrupted run goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from freemask.calibration import mmc
from freemask.data.clips import ClipSource, load_clips
from freemask.editors.editor import Editor
from freemask.io.resumable import ResumableFolder
from freemask.masks.codebook import Codebook
from freemask.sampling.inversion import invert
from freemask.telemetry import release_unused
from freemask.types import Progress


def calibrate(
    editor: Editor,
    clips: Iterable[ClipSource],
    *,
    data: str,
    steps: int = 50,
    parts: ResumableFolder | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> Codebook:
    """Measure MMC on labelled clips. One clip's word maps live at a time.

    data: what the clips are, for the codebook. parts: where to keep what is measured, so that an
    interrupted calibration goes on; it gives the same codebook. report: is told of clips left out.
    """
    calibration = mmc.Calibration()
    for source in clips:
        cost = measure_clip(
            editor, source, steps=steps, parts=parts, report=report, progress=progress
        )
        if cost is not None:
            calibration.add(cost)
    return calibration.codebook(editor=editor.name, checkpoint=editor.fingerprint(), data=data)


def measure_clip(
    editor: Editor,
    source: ClipSource,
    *,
    steps: int,
    parts: ResumableFolder | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> mmc.ClipCost | None:
    """The cost of one clip, measured or taken from `parts`; None if the clip cannot serve."""
    file = f"{source.name}.npz"
    if parts and parts.path(file).exists():
        return mmc.ClipCost.load(parts.path(file))
    for clip in load_clips([source], report):
        inversion = invert(
            editor, clip.video, clip.prompt, words=clip.word, steps=steps, progress=progress
        )
        cost = mmc.ClipCost.measure(inversion.word_maps["source"], torch.from_numpy(clip.mask))
        if parts:
            parts.write(file, cost.to_bytes())
        del inversion
        release_unused()
        return cost
    return None
