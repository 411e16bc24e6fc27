"""Keeps an editor that a workflow asked for: what a FREEMASK_EDITOR is."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import host

if TYPE_CHECKING:
    from freemask.editors.editor import Editor
    from freemask.editors.request import EditorRequest


class EditorHandle:
    """An editor whose weights are read when a node first uses it, and once.

    wanted: the editor.
    keep_loaded: whether the weights stay where they are after a node has used them.
    force: whether clips that do not fit in memory by the estimate are tried anyway.
    """

    def __init__(
        self, wanted: EditorRequest, *, keep_loaded: bool = True, force: bool = False
    ) -> None:
        self.wanted, self.keep_loaded, self.force = wanted, keep_loaded, force
        self._editor: Editor | None = None

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._editor is not None

    @contextmanager
    def editor(self) -> Iterator[Editor]:
        """Yields the editor, which is loaded if it is not.

        Raises `InputError` as `freemask.load_editor` does.
        """
        try:
            if self._editor is None:
                host.check_interrupted()
                self._editor = self.wanted.load_editor()
            yield self._editor
        finally:
            if not self.keep_loaded:
                self.unload()

    def unload(self) -> None:
        """Gives the memory of the weights back."""
        self._editor = None
        gc.collect()
        host.empty_cache()
