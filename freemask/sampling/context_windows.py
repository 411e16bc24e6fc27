"""Edits long clips in context windows that overlap, so that memory is that of one window.

    frames   0 1 2 3 4 5 6 7 8 9 ...
    first    [0 1 2 3 4 5]
    second   (0)     [4 5 6 7 8]        after the anchor 0; frames 4 and 5 are shared
    third    (0)           [7 8 9 ..]

Every later window starts with the clip's first frames, the anchors, with the latents that the first
window gave them. Layers that attend to other frames (temporal and sparse-causal attention) then see
the same keys and values in every window. Over an overlap, the latents of neighbouring windows are
blended at every step, and their masks once, from the earlier window to the later one. Blending
latents is MultiDiffusion (arXiv 2302.08113) in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from freemask.prepare import PreparedEdit
from freemask.settings import WindowSettings
from freemask.types import Masks, Video


@dataclass(frozen=True)
class Window:
    """Frames `[start, end)` of a clip, after its first `anchors` frames.

    shared: how many of its own first frames the previous window also has.
    """

    start: int
    end: int
    shared: int
    anchors: int

    def clip(self, video: Video) -> Video:
        """Returns the frames that the backbone sees, anchors first."""
        return Video(self.take(torch.from_numpy(video.frames)).numpy(), video.fps)

    def take(self, frames: Tensor) -> Tensor:
        """Returns the window's part of `frames (F, ...)`, anchors first."""
        return torch.cat([frames[: self.anchors], frames[self.start : self.end]])

    def slice(self, prepared: PreparedEdit) -> PreparedEdit:
        """Returns an edit of the whole clip as one of this window."""
        if prepared.user_mask is None:
            return prepared
        values = self.take(prepared.user_mask.values[0])[None]
        return replace(prepared, user_mask=replace(prepared.user_mask, values=values))


def split(frames: int, settings: WindowSettings) -> list[Window]:
    """Returns the windows of a clip; a single one without anchors if it holds all frames.

    Every window has `settings.frames` frames, anchors included; the last may be shorter.
    """
    windows, end = [Window(0, min(settings.frames, frames), 0, 0)], settings.frames
    while end < frames:
        start = end - settings.overlap
        end = min(start + settings.frames - settings.anchors, frames)
        windows.append(Window(start, end, settings.overlap, settings.anchors))
    return windows


def ramp(count: int) -> Tensor:
    """Returns the weights of the later window over an overlap, `(count,)`, between 0 and 1."""
    return torch.arange(1, count + 1) / (count + 1)


@dataclass(eq=False)
class WindowBlender:
    """Blends each window with those before it: latents step by step, and masks.

    Call `enter` with a window, then `masks` with its masks and `latents` with what each step gives.
    """

    settings: WindowSettings
    _window: Window | None = None
    _first: dict[int, Tensor] = field(default_factory=dict)
    _before: dict[int, Tensor] = field(default_factory=dict)
    _tail: dict[int, Tensor] = field(default_factory=dict)
    _masks: tuple[Tensor, Tensor] | None = None

    def enter(self, window: Window) -> None:
        """Starts a window; its `shared` frames are the last ones of the previous window."""
        self._window, self._before, self._tail = window, self._tail, {}

    def latents(self, step: int, current: Tensor) -> Tensor:
        """Returns the blended latents `(1, C, F, h, w)` of the window after a step."""
        window = self._entered()
        if window.shared:
            first, before = self._first[step], self._before[step]
            body = current[:, :, window.anchors :]
            weight = ramp(window.shared).to(current)[:, None, None]
            shared = torch.lerp(before, body[:, :, : window.shared], weight)
            current = torch.cat([first, shared, body[:, :, window.shared :]], dim=2)
        else:
            self._first[step] = current[:, :, : self.settings.anchors].clone()
        self._tail[step] = current[:, :, -self.settings.overlap :].clone()
        return current

    def masks(self, masks: Masks) -> Masks:
        """Returns the blended masks of the window."""
        window, values = self._entered(), masks.values
        if window.shared:
            assert self._masks
            first, before = self._masks
            body = values[:, window.anchors :]
            weight = ramp(window.shared)[:, None, None].to(values)
            shared = torch.lerp(before, body[:, : window.shared], weight)
            values = torch.cat([first, shared, body[:, window.shared :]], dim=1)
            self._masks = (first, values[:, -self.settings.overlap :])
        else:
            self._masks = (values[:, : self.settings.anchors], values[:, -self.settings.overlap :])
        return replace(masks, values=values)

    def _entered(self) -> Window:
        assert self._window, "enter a window first"
        return self._window


def with_final_frames(windows: list[Window]) -> Iterator[tuple[Window, slice]]:
    """Yields every window and which of its frames, anchors counted, are final when it is done.

    Frames that the next window shares become final with that window.
    """
    for window, later in zip(windows, [*windows[1:], None], strict=True):
        end = window.end if later is None else later.start
        first = window.anchors
        yield window, slice(first, first + end - window.start)
