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

Where a latent frame covers several frames (`LatentTime`), windows are cut between latent frames:
`fitted` rounds the settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from freemask.editors.latent_time import IMAGE_VAE, LatentTime
from freemask.prepare import PreparedEdit
from freemask.settings.sections import WindowSettings
from freemask.types import InputError, Masks, Video


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

    def slice(self, prepared: PreparedEdit, time: LatentTime) -> PreparedEdit:
        """Returns an edit of the whole clip as one of this window.

        time: how the editor's latent frames cover the frames of a clip.
        """
        prepared = replace(prepared, latent_frames=self.latent_frames(time))
        if prepared.user_mask is None:
            return prepared
        values = self.take(prepared.user_mask.values[0])[None]
        return replace(prepared, user_mask=replace(prepared.user_mask, values=values))

    def latent_frames(self, time: LatentTime) -> tuple[int, ...]:
        """Returns the numbers that its latent frames have within the clip."""
        anchors = time.latent_frames(self.anchors) if self.anchors else 0
        start = time.latent_frames(self.start) if self.start else 0
        return (*range(anchors), *range(start, time.latent_frames(self.end)))


def fitted(settings: WindowSettings, time: LatentTime) -> WindowSettings:
    """Returns settings whose windows hold whole latent frames.

    The length is rounded down, overlap and anchors are rounded up.

    Raises `InputError` if no frames of their own remain.
    """
    if time.factor == 1:
        return settings
    whole = 1 + (settings.frames - 1) // time.factor * time.factor
    overlap = -(-settings.overlap // time.factor) * time.factor
    anchors = time.padded(max(1, settings.anchors))
    if whole <= anchors + overlap:
        raise InputError(
            f"window.frames is {settings.frames}, window.overlap {settings.overlap} and "
            f"window.anchors {settings.anchors}; latent frames hold {time.factor} frames each, so "
            f"they are rounded to {whole}, {overlap} and {anchors}, and frames must exceed the "
            "others together"
        )
    return WindowSettings(whole, overlap, anchors)


def split(frames: int, settings: WindowSettings, time: LatentTime = IMAGE_VAE) -> list[Window]:
    """Returns the windows of a clip; a single one without anchors if it holds all frames.

    Every window has `settings.frames` frames, anchors included; the last may be shorter.

    Raises `InputError` as `fitted` does.
    """
    if frames <= settings.frames:
        return [Window(0, frames, 0, 0)]
    settings = fitted(settings, time)
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

    given: the settings, before they are fitted to latent frames.
    time: how latent frames cover the frames of a clip.
    """

    given: WindowSettings
    time: LatentTime = IMAGE_VAE
    _window: Window | None = None
    _first: dict[int, Tensor] = field(default_factory=dict)
    _before: dict[int, Tensor] = field(default_factory=dict)
    _tail: dict[int, Tensor] = field(default_factory=dict)
    _masks: tuple[Tensor, Tensor] | None = None

    @cached_property
    def settings(self) -> WindowSettings:
        """The settings, fitted to latent frames."""
        return fitted(self.given, self.time)

    def enter(self, window: Window) -> None:
        """Starts a window; its `shared` frames are the last ones of the previous window."""
        self._window, self._before, self._tail = window, self._tail, {}

    def latents(self, step: int, current: Tensor) -> Tensor:
        """Returns the blended latents `(1, C, F, h, w)` of the window after a step."""
        settings, factor = self.settings, self.time.factor
        anchors = self.time.latent_frames(settings.anchors) if settings.anchors else 0
        if count := self._entered().shared // factor:
            first, before = self._first[step], self._before[step]
            body = current[:, :, anchors:]
            weight = ramp(count).to(current)[:, None, None]
            shared = torch.lerp(before, body[:, :, :count], weight)
            current = torch.cat([first, shared, body[:, :, count:]], dim=2)
        else:
            self._first[step] = current[:, :, :anchors].clone()
        self._tail[step] = current[:, :, -(settings.overlap // factor) :].clone()
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
