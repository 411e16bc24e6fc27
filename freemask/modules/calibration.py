"""Calibrates with Lightning: `predict_step` measures one clip, and every rank measures others.

Costs of finished clips are files in a `ResumableFolder`. When all ranks are done, the first one
sums them up in the order of the clips, so that any number of devices gives the same codebook (on a
CPU, with as many threads in each process).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lightning as L
from torch.utils.data import DataLoader, Dataset

from freemask.calibration.calibrate import calibrate, measure_clip
from freemask.calibration.request import CalibrationRequest
from freemask.data.clips import ClipSource
from freemask.editors.editor import Editor
from freemask.editors.request import EditorRequest
from freemask.io.resumable import ResumableFolder
from freemask.progress import no_progress
from freemask.types import Progress


class Numbers(Dataset[int]):
    """The numbers 0, 1, ..., count - 1."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class CalibrationModule(L.LightningModule):
    """Measures clips with a base editor, which every rank loads onto its own device.

    request: the calibration.
    sources: its clips.
    wanted: the editor to load.
    echo: called with a line for every clip that is left out.
    progress: called with the stage, the clips done on all ranks and the clips in all.

    `summary` says what the codebook shows, on the first rank after the run.
    """

    def __init__(
        self,
        request: CalibrationRequest,
        sources: Sequence[ClipSource],
        wanted: EditorRequest,
        *,
        echo: Callable[[str], None] = lambda line: None,
        progress: Progress = no_progress,
    ) -> None:
        super().__init__()
        self.request, self.sources, self.wanted, self.echo = request, sources, wanted, echo
        self.progress, self._done = progress, 0
        self.editor: Editor | None = None
        self.folder: ResumableFolder | None = None
        self.summary = ""

    def predict_dataloader(self) -> DataLoader[int]:
        """Returns the numbers of the clips."""
        return DataLoader(Numbers(len(self.sources)), batch_size=None)

    def setup(self, stage: str) -> None:
        """Loads the editor onto this rank's device and opens the folder of finished clips."""
        self.editor = self.wanted.load_editor(str(self.trainer.strategy.root_device))
        self.folder = self.request.open_folder(self.editor)

    def predict_step(self, batch: int, batch_idx: int) -> str:
        """Measures one clip, unless it is finished; returns its name."""
        assert self.editor is not None
        assert self.folder is not None
        source = self.sources[int(batch)]
        measure_clip(
            self.editor,
            source,
            steps=self.request.steps,
            unlabelled=self.request.unlabelled,
            folder=self.folder,
            echo=self.echo,
        )
        self._report(sum(self.folder.path(f"{s.name}.npz").exists() for s in self.sources))
        return source.name

    def _report(self, done: int) -> None:
        """Reports on the first rank how many clips are done, unless that is known."""
        if self.trainer.is_global_zero and done > self._done:
            self._done = done
            self.progress("calibrate", done, len(self.sources))

    def on_predict_end(self) -> None:
        """Waits for all ranks; the first one writes the codebook."""
        assert self.editor is not None
        assert self.folder is not None
        self.trainer.strategy.barrier()
        self._report(len(self.sources))
        if self.trainer.is_global_zero:
            codebook = calibrate(
                self.editor,
                self.sources,
                data=self.request.describe(),
                steps=self.request.steps,
                unlabelled=self.request.unlabelled,
                folder=self.folder,
            )
            self.summary = self.request.finish(codebook, self.folder)
