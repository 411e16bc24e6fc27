"""Counts the clips that a backbone predicts, which tells the cost of an edit on any machine."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from torch import Tensor

from freemask.editors.editor import Editor


class BackboneCalls:
    """A context that counts the clips in all batches that an editor's backbone predicts.

    A guided step of plain generation counts 2: one clip with the prompt, and one without.

    count: the clips so far.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor, self.count = editor, 0

    def __enter__(self) -> Self:
        predict = self.editor.predict

        def counted(latents: Tensor, timestep: float, text: Tensor) -> Tensor:
            self.count += len(latents)
            return predict(latents, timestep, text)

        self._before = vars(self.editor).get("predict")
        self.editor.predict = counted  # type: ignore[method-assign]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is None:
            del self.editor.predict
        else:
            self.editor.predict = self._before  # type: ignore[method-assign]
