"""The tab on which a visitor chooses the cells of a mask, corrects it with a brush and saves it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from freemask.io.masks import write_masks
from freemask.io.video import write_mp4
from freemask.types import InputError
from freemask.ui.brush import painted
from freemask.ui.edit_tab import EditFields, form_of, report_of
from freemask.ui.mask_sheet import MaskSheet
from freemask.ui.overlay import agreement_with, overlay
from freemask.ui.parts import clips_html, readable, visitor_of
from freemask.ui.workplace import Visitor, Workplace

ADD, REMOVE = "add to the mask", "remove from the mask"


def masks_tab(workplace: Workplace, fields: EditFields) -> None:
    """Builds the tab.

    fields: those of the tab Edit, which say which clip and word to look at, and take the mask.
    """
    gr.Markdown("Look at the maps of the edited word, and choose the ones to trust.")
    look = gr.Button("Look at the clip of the tab Edit", variant="primary", elem_id="look")
    status = gr.Markdown("", elem_id="mask-status")
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            gr.Markdown(
                "Sites by noise levels, on the middle frame, each with its cost (lower is better). "
                "A click chooses a cell; the mask is then made of exactly the chosen ones."
            )
            sheet = gr.Image(
                label="Sites by noise levels", show_label=False, interactive=False,
                buttons=["fullscreen"], elem_id="sheet", format="png",
                alt_text="heat of the word at every site and noise level",
            )  # fmt: skip
            with gr.Accordion("The same cells as a list, best first", open=False):
                cells = gr.CheckboxGroup([], label="Cells", elem_id="cells")
        with gr.Column(min_width=320):
            view = gr.HTML(elem_id="chosen-view")
            threshold = gr.Slider(0.05, 0.95, 0.4, step=0.01, label="Threshold of chosen cells")
            frame = gr.Slider(1, 2, 1, step=1, label="Frame", elem_id="frame")
            canvas = gr.ImageEditor(
                label="Brush", type="numpy", sources=(), transforms=(), layers=False,
                brush=gr.Brush(default_size=6, colors=["#ff0050"], color_mode="fixed"),
                elem_id="canvas",
            )  # fmt: skip
            way = gr.Radio([ADD, REMOVE], value=ADD, label="A stroke is to")
            with gr.Row():
                paint = gr.Button("Apply the stroke", elem_id="paint")
                undo = gr.Button("Without strokes", elem_id="undo")
            with gr.Row():
                use = gr.Button("Use in Edit", variant="primary", elem_id="use-mask")
                save = gr.DownloadButton("Download the mask", elem_id="save-mask")
    drawn = [view, canvas, save, status]
    device = {"concurrency_limit": 1, "concurrency_id": "device"}
    handlers = _Handlers(workplace)
    look.click(handlers.look, fields.all(), [sheet, cells, frame, *drawn], **device)
    sheet.select(handlers.click, cells, cells, show_progress="hidden")
    cells.change(
        handlers.choose, [cells, threshold, frame], [sheet, *drawn], trigger_mode="always_last"
    )
    threshold.change(
        handlers.choose, [cells, threshold, frame], [sheet, *drawn], trigger_mode="always_last"
    )
    frame.change(handlers.show, frame, canvas, trigger_mode="always_last", show_progress="hidden")
    paint.click(handlers.paint, [canvas, frame, way], drawn, **device)
    undo.click(handlers.choose, [cells, threshold, frame], [sheet, *drawn])
    use.click(handlers.use, None, [fields.mask, status])


class _Handlers:
    """What the controls of the tab do."""

    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace
        for name in ("look", "choose", "paint", "use", "click", "show"):
            setattr(self, name, readable(getattr(self, name)))

    def _visitor(self, request: gr.Request) -> Visitor:
        visitor = self.workplace.visitor(visitor_of(request))
        if visitor.look is None:
            raise InputError("look at the clip first")
        return visitor

    def look(
        self,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008, Gradio finds it so
        *values: Any,
    ) -> tuple[Any, ...]:
        """Records the maps, and shows the mask of the edit's own policy."""
        self.workplace.look(visitor_of(request), form_of(values), report_of(progress))
        visitor = self._visitor(request)
        assert visitor.look is not None
        made = MaskSheet(visitor.look)
        visitor.mask = visitor.look.mask()
        choices = gr.update(choices=made.labelled(), value=[])
        frames = gr.update(maximum=max(2, visitor.look.video.num_frames), value=1)
        return made.draw(), choices, frames, *self._drawn(visitor, 1, visitor.look.selection.origin)

    def click(self, request: gr.Request, event: gr.SelectData, chosen: list[str]) -> list[str]:
        """Adds or removes the cell of a click."""
        visitor = self._visitor(request)
        assert visitor.look is not None
        name = MaskSheet(visitor.look).name_at(*event.index)
        if name is None:
            return chosen
        return [n for n in chosen if n != name] if name in chosen else [*chosen, name]

    def choose(
        self, request: gr.Request, chosen: list[str], threshold: float, frame: int
    ) -> tuple[Any, ...]:
        """Makes the mask of exactly the chosen cells; of none, the policy's."""
        visitor = self._visitor(request)
        look = visitor.look
        assert look is not None
        sheet = MaskSheet(look)
        policy = look.mask()
        if not chosen:
            visitor.mask = policy
            return sheet.draw(), *self._drawn(visitor, frame, look.selection.origin)
        cells = sheet.chosen(chosen)
        visitor.mask = look.mask(threshold=threshold, cells=cells)
        same = agreement_with(visitor.mask, policy)
        sites = ",".join(dict.fromkeys(site.name for site, _ in cells))
        text = (
            f"Cells: {len(cells)}; overlap with the policy's mask {same:.0%}. The sites alone: "
            f"`mask.sites=explicit mask.explicit=[{sites}]`"
        )
        return sheet.draw(chosen), *self._drawn(visitor, frame, text)

    def show(self, request: gr.Request, frame: int) -> Any:
        """Shows another frame under the brush."""
        return self._canvas(self._visitor(request), int(frame))

    def paint(
        self,
        request: gr.Request,
        canvas: dict[str, Any],
        frame: int,
        way: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008, Gradio finds it so
    ) -> tuple[Any, ...]:
        """Applies a stroke to the mask of every frame."""
        visitor = self._visitor(request)
        assert visitor.look is not None
        assert visitor.mask is not None
        stroke = stroke_of(canvas, visitor.look.video.size)
        number, report = int(frame) - 1, report_of(progress)
        strokes = self.workplace.stroke(visitor.name, stroke, number, report)
        visitor.mask = painted(visitor.mask, strokes, add=way == ADD)
        return self._drawn(visitor, int(frame), "The stroke follows what it covers.")

    def use(self, request: gr.Request) -> tuple[str, str]:
        """Gives the mask to the tab Edit."""
        visitor = self._visitor(request)
        path = self._saved(visitor)
        return str(path), "The tab Edit uses this mask now."

    def _saved(self, visitor: Visitor) -> Path:
        assert visitor.mask is not None
        path = self._new_file(visitor, "npz")
        write_masks(visitor.mask.numpy(), path)
        return path

    def _new_file(self, visitor: Visitor, suffix: str) -> Path:
        name = f"mask-{random.getrandbits(32):08x}.{suffix}"
        return self.workplace.folder.of(visitor.name) / name

    def _drawn(self, visitor: Visitor, frame: int, text: str) -> tuple[Any, ...]:
        """Returns the view of the mask, the canvas, the file and the status."""
        assert visitor.look is not None
        assert visitor.mask is not None
        path = self._new_file(visitor, "mp4")
        write_mp4(overlay(visitor.look.video, None, visitor.mask), path)
        share = float(visitor.mask.mean())
        view = clips_html([(f"mask: {share:.0%} of the picture", path)])
        return view, self._canvas(visitor, frame), str(self._saved(visitor)), text

    @staticmethod
    def _canvas(visitor: Visitor, frame: int) -> dict[str, Any]:
        assert visitor.look is not None
        assert visitor.mask is not None
        video, n = visitor.look.video, min(max(frame, 1), visitor.look.video.num_frames) - 1
        part = type(video)(video.frames[n : n + 1])
        shown = overlay(part, None, visitor.mask[n : n + 1]).frames[0]
        return {"background": shown, "layers": [], "composite": shown}


def stroke_of(canvas: dict[str, Any] | None, size: tuple[int, int]) -> np.ndarray:
    """Returns where a canvas was painted, bool `(H, W)` at the size of the clip.

    Raises `InputError` if nothing was painted.
    """
    import torch.nn.functional as F

    painted_on = np.zeros((1, 1), dtype=bool)
    for layer in (canvas or {}).get("layers") or []:
        alpha = np.asarray(layer)[..., -1] > 0
        painted_on = alpha if painted_on.shape == (1, 1) else painted_on | alpha
    if not painted_on.any():
        raise InputError("nothing is painted; draw on the frame with the brush first")
    shown: Tensor = torch.from_numpy(painted_on).float()[None, None]
    found: np.ndarray = (F.interpolate(shown, size=size, mode="area")[0, 0] >= 0.25).numpy()
    return found
