"""Calibrates an editor: inverts clips one at a time and measures their word maps.

    clips -> measure_clip -> ClipCost, summed over clips -> Codebook

A clip without a true mask is measured against what its own maps agree on (`consensus_label`).
The costs of finished clips can be kept in a folder, so that an interrupted calibration continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from freemask.calibration.consensus_label import consensus_label
from freemask.calibration.mmc import Calibration, ClipCost
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
    unlabelled: bool = False,
    folder: ResumableFolder | None = None,
    echo: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> Codebook:
    """Measures the Mask Matching Cost on clips; holds the word maps of one clip at a time.

    clips: clips with a word and its true mask, on the same frame size and number of frames.
    data: description of the clips, for the codebook.
    steps: number of steps T of each inversion.
    unlabelled: whether the consensus of a clip's maps takes the place of its true mask.
    folder: keeps the costs of finished clips; a calibration that continues from it gives the same
        codebook.
    echo: called with a line for every clip that is left out.
    progress: called with the stage, the steps done and the steps in all of each inversion.

    Raises `InputError` if no clip can be used.
    """
    calibration = Calibration()
    for source in clips:
        cost = measure_clip(
            editor,
            source,
            steps=steps,
            unlabelled=unlabelled,
            folder=folder,
            echo=echo,
            progress=progress,
        )
        if cost is not None:
            calibration.add(cost)
    return calibration.codebook(editor=editor.name, checkpoint=editor.fingerprint(), data=data)


def measure_clip(
    editor: Editor,
    source: ClipSource,
    *,
    steps: int,
    unlabelled: bool = False,
    folder: ResumableFolder | None = None,
    echo: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> ClipCost | None:
    """Returns the cost of one clip, measured or read from `folder`; None if it cannot be used.

    The arguments are those of `calibrate`.
    """
    if source.rejected:
        echo(f"{source.name}: left out, {source.rejected}")
        return None
    file = f"{source.name}.npz"
    if folder and folder.path(file).exists():
        return ClipCost.load(folder.path(file))
    for clip in load_clips([source], echo):
        inversion = invert(
            editor, clip.video, clip.prompt, words=clip.word, steps=steps, progress=progress
        )
        maps = inversion.word_maps["source"]
        if unlabelled or clip.mask is None:
            label = consensus_label(maps, clip.video)
        else:
            label = torch.from_numpy(clip.mask)
        if not label.any():
            echo(f"{source.name}: left out, its mask is empty")
            return None
        cost = ClipCost.measure(maps, label)
        if folder:
            folder.write(file, cost.to_bytes())
        del inversion, maps
        release_unused()
        return cost
    return None
