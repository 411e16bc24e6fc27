"""Counts what a backbone predicts, in whole clips: the cost of an edit on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from torch import Tensor

from freemask.attention.lanes import Lane
from freemask.editors.editor import Editor


class BackboneCalls:
    """A context that counts the clips in all batches that an editor's backbone predicts.

    A guided step of plain generation counts 2: one clip with the prompt, and one without. A lane
    (`attention.lanes`) counts the share of the clip's tokens that it carries.

    count: the clips so far.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor, self.count = editor, 0.0

    def __enter__(self) -> Self:
        predict, predict_lanes = self.editor.predict, self.editor.predict_lanes

        def counted(latents: Tensor, timestep: float, text: Tensor) -> Tensor:
            self.count += len(latents)
            return predict(latents, timestep, text)

        def counted_lanes(lanes: Sequence[Lane], timestep: float) -> list[Tensor]:
            self.count += sum(lane.calls for lane in lanes)
            return predict_lanes(lanes, timestep)

        counting = {"predict": counted, "predict_lanes": counted_lanes}
        self._before = {name: vars(self.editor).get(name) for name in counting}
        vars(self.editor).update(counting)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, before in self._before.items():
            if before is None:
                delattr(self.editor, name)
            else:
                setattr(self.editor, name, before)
