"""Calibration with Lightning: `predict_step` measures one clip, every rank another.

What is measured goes to files (`ResumableFolder`); when all ranks are done the first one sums them up in
the order of the clips, so that the codebook is the same on any number of devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lightning as L
from torch.utils.data import DataLoader, Dataset

from freemask.calibration.calibrate import CalibrationRequest, calibrate, measure_clip
from freemask.data.clips import ClipSource
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.io.resumable import ResumableFolder


class Numbers(Dataset[int]):
    """0, 1, ...: which clip."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class CalibrationModule(L.LightningModule):
    """Measures clips with a base editor, which every rank loads onto its own device."""

    def __init__(
        self,
        request: CalibrationRequest,
        sources: Sequence[ClipSource],
        *,
        editor: str,
        checkpoint: str,
        dtype: str = "auto",
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__()
        self.request, self.sources, self.report = request, sources, report
        self.arguments = (editor, checkpoint, dtype)
        self.editor: Editor | None = None
        self.parts: ResumableFolder | None = None
        self.summary = ""

    def predict_dataloader(self) -> DataLoader[int]:
        return DataLoader(Numbers(len(self.sources)), batch_size=None)

    def setup(self, stage: str) -> None:
        """Load the editor onto this rank's device."""
        name, checkpoint, dtype = self.arguments
        device = str(self.trainer.strategy.root_device)
        self.editor = load_editor(name, checkpoint=checkpoint, device=device, dtype=dtype)
        self.parts = self.request.open_parts(self.editor)

    def predict_step(self, batch: int, batch_idx: int) -> None:
        """Measure one clip, unless it has been."""
        assert self.editor is not None
        measure_clip(
            self.editor,
            self.sources[int(batch)],
            steps=self.request.steps,
            parts=self.parts,
            report=self.report,
        )

    def on_predict_end(self) -> None:
        """When every rank is done, the first one writes the codebook."""
        assert self.editor is not None
        assert self.parts is not None
        self.trainer.strategy.barrier()
        if self.trainer.is_global_zero:
            codebook = calibrate(
                self.editor,
                self.sources,
                data=self.request.describe(),
                steps=self.request.steps,
                parts=self.parts,
            )
            self.summary = self.request.finish(codebook, self.parts)
