"""Changes a mask by strokes on one frame, and carries them through the clip.

A stroke follows the motion of the picture (optical flow), or a model follows what lies under it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.data.object_prompt import ObjectPrompt
from freemask.evaluation.optical_flow import LEAST_SIDE, available, estimate_flow
from freemask.progress import no_progress
from freemask.types import InputError, Progress, Video


def painted(mask: Tensor, strokes: Tensor, *, add: bool) -> Tensor:
    """Returns a mask with strokes added or removed.

    mask, strokes: `(F, H, W)`, in {0, 1}.
    """
    return torch.maximum(mask, strokes) if add else mask * (1 - strokes)


def carried(video: Video, stroke: np.ndarray, frame: int) -> Tensor:
    """Returns a stroke on every frame of a clip, `(F, H, W)` in {0, 1}: it follows what it covers.

    stroke: bool `(H, W)`, on one frame.
    frame: the number of that frame.

    Raises `InputError` for a stroke of another size, and for a clip whose motion cannot be
    estimated.
    """
    _check(video, stroke, frame)
    strokes = torch.zeros(video.num_frames, *video.size)
    strokes[frame] = torch.from_numpy(stroke).float()
    if video.num_frames == 1 or not stroke.any():
        return strokes
    forward, backward = _motions(video)
    for n in range(frame, video.num_frames - 1):  # a place of frame n + 1 was in frame n
        strokes[n + 1] = _moved(strokes[n], backward[n])
    for n in range(frame, 0, -1):
        strokes[n - 1] = _moved(strokes[n], forward[n - 1])
    return strokes


def tracked(
    video: Video,
    stroke: np.ndarray,
    frame: int,
    model: str,
    *,
    device: str = "auto",
    progress: Progress = no_progress,
) -> Tensor:
    """Returns the object under a stroke on every frame of a clip, `(F, H, W)` in {0, 1}.

    model: folder or hub id of a model that follows the object in a box, such as SAM 2; the box is
        that of the stroke.
    progress: called with the stage, the frames done and the frames in all.
    others: as in `carried`.

    Raises `InputError` as `carried` does, and for a model that takes no box or cannot be loaded.
    """
    from freemask.segmentation.registry import loaded_teacher

    _check(video, stroke, frame)
    found = torch.zeros(video.num_frames, *video.size)
    if not stroke.any():
        return found
    rows, columns = np.nonzero(stroke)
    height, width = stroke.shape
    box = (
        columns.min() / width, rows.min() / height,
        (columns.max() + 1) / width, (rows.max() + 1) / height,
    )  # fmt: skip
    prompt = ObjectPrompt(box=tuple(map(float, box)))
    forward, backward = range(frame, video.num_frames), range(frame, -1, -1)
    done = 0
    with loaded_teacher(model, device) as teacher:
        for order in (forward, backward):
            part = Video(np.ascontiguousarray(video.frames[list(order)]), video.fps)
            for number, seen in zip(order, teacher.segment(part, prompt), strict=True):
                found[number] = torch.from_numpy(seen.mask).float()
                progress("track", done := done + 1, video.num_frames + 1)
    return found


def _check(video: Video, stroke: np.ndarray, frame: int) -> None:
    """Raises `InputError` for a stroke that is not on a frame of a clip."""
    if stroke.shape != video.size:
        raise InputError(f"the stroke is {stroke.shape}, the clip {video.size}; draw it again")
    if not 0 <= frame < video.num_frames:
        raise InputError(f"frame {frame + 1} is none of {video.num_frames}")


def _motions(video: Video) -> tuple[Tensor, Tensor]:
    """Returns the motion from each frame to the next, and back, `(F - 1, H, W, 2)` in pixels (down,
    right)."""
    if not available():
        raise InputError(
            "a stroke follows its object by OpenCV, which is not installed; pip install "
            "'freemask[eval]'"
        )
    reverse = Video(np.ascontiguousarray(video.frames[::-1]))
    there, back = estimate_flow(video), estimate_flow(reverse)
    if there is None or back is None:
        raise InputError(f"frames below {LEAST_SIDE} pixels show no motion; take a larger size")
    motions = (there[0], back[0][::-1])
    first, second = (torch.from_numpy(np.ascontiguousarray(m)).float() for m in motions)
    return first, second


def _moved(stroke: Tensor, motion: Tensor) -> Tensor:
    """Returns a stroke where each place takes the value of the place that its motion leads to."""
    height, width = stroke.shape
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float32),
        torch.arange(width, dtype=torch.float32),
        indexing="ij",
    )
    x = 2 * (columns + motion[..., 1]) / max(1, width - 1) - 1
    y = 2 * (rows + motion[..., 0]) / max(1, height - 1) - 1
    grid = torch.stack([x, y], dim=-1)[None]
    found = F.grid_sample(stroke[None, None], grid, mode="bilinear", align_corners=True)
    return (found[0, 0] >= 0.5).float()
