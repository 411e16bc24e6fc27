"""Long clips in windows that overlap, so that memory is that of one window.

    frames   0 1 2 3 4 5 6 7 8 9 ...
    first    [0 1 2 3 4 5]
    second   (0)     [4 5 6 7 8]        with the anchor 0 in front, and 4 and 5 shared
    third    (0)           [7 8 9 ..]

Every later window begins with the clip's first frames, the anchors, as the first window edited
them, latent by latent: what attends to other frames (temporal and sparse-causal attention) so sees
the same keys and values everywhere. Over the overlap the latents of neighbouring windows are
blended at every step, and their masks too, from all of the earlier to all of the later one. The
blending of latents is that of MultiDiffusion (arXiv 2302.08113), in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from freemask.settings import WindowSettings
from freemask.types import Masks, Video


@dataclass(frozen=True)
class Window:
    """Frames `[start, end)` of a clip behind some anchors; the first `shared` of them are those of
    the window before."""

    start: int
    end: int
    shared: int
    anchors: int

    def clip(self, video: Video) -> Video:
        """What the backbone sees of a clip."""
        return Video(self.take(torch.from_numpy(video.frames)).numpy(), video.fps)

    def take(self, frames: Tensor) -> Tensor:
        """The anchors and the window's own of some frames `(F, ...)`."""
        return torch.cat([frames[: self.anchors], frames[self.start : self.end]])


def split(frames: int, settings: WindowSettings) -> list[Window]:
    """The windows of a clip; one, with no anchor, when that holds all frames.

    Every window has `settings.frames` frames, anchors included, but the last, which may be shorter.
    """
    windows, end = [Window(0, min(settings.frames, frames), 0, 0)], settings.frames
    while end < frames:
        start = end - settings.overlap
        end = min(start + settings.frames - settings.anchors, frames)
        windows.append(Window(start, end, settings.overlap, settings.anchors))
    return windows


def ramp(count: int) -> Tensor:
    """The weight of the later window over an overlap, `(count,)`, between 0 and 1."""
    return torch.arange(1, count + 1) / (count + 1)


@dataclass(eq=False)
class WindowBlender:
    """What windows hand on: the anchors' latents and masks, and those of the overlap, step by step.

    `enter` a window, then bring its masks and what it comes to at each of its steps together with
    the windows before. Masks of single resolutions (`mask.sites=best_per_resolution`) stay a
    window's own.
    """

    settings: WindowSettings
    _window: Window | None = None
    _first: dict[int, Tensor] = field(default_factory=dict)
    _before: dict[int, Tensor] = field(default_factory=dict)
    _tail: dict[int, Tensor] = field(default_factory=dict)
    _masks: tuple[Tensor, Tensor] | None = None

    def enter(self, window: Window) -> None:
        """Begin a window; its `shared` frames are the last ones of the window before."""
        self._window, self._before, self._tail = window, self._tail, {}

    def latents(self, step: int, current: Tensor) -> Tensor:
        """What a window comes to at a step, `(1, C, F, h, w)`."""
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
        """The masks of a window."""
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


def own_frames(windows: list[Window]) -> Iterator[tuple[Window, slice]]:
    """Every window and which of its frames are final once it is done, anchors counted.

    The frames that the next window shares are final only with that one.
    """
    for window, later in zip(windows, [*windows[1:], None], strict=True):
        end = window.end if later is None else later.start
        first = window.anchors
        yield window, slice(first, first + end - window.start)
