"""A base editor that was asked for: what the command line and long runs load.

Nothing heavy is imported until the editor is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freemask.editors.checkpoints import Checkpoint
    from freemask.editors.editor import Editor
    from freemask.editors.latent_time import LatentTime
    from freemask.editors.native_size import NativeFrame
    from freemask.types import EditRequest


@dataclass(frozen=True, kw_only=True)
class EditorRequest:
    """A base editor to load.

    editor: name of the base editor; `freemask editors` lists them.
    checkpoint: a folder in diffusers' layout, a single file of Stable Diffusion 1.x or 2.x, a hub
        id, or "demo" for the shipped checkpoint.
    device: a torch device; "auto" is the GPU if there is one.
    dtype: "float32", "float16" or "bfloat16"; "auto" is float16 on a GPU, bfloat16 there for wan,
        and float32 elsewhere.
    revision: branch, tag or commit of a hub id; its main branch if not given.
    variant: variant of the weights, such as fp16; if not given, the one that suits the dtype.
    lora: a LoRA file to fuse into the weights, with its weight (1 if not given); may be given
        several times.
    options: an option of the editor; may be given several times.
    """

    editor: str = "zeroscope"
    checkpoint: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    variant: str | None = None
    lora: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def load_editor(self, device: str | None = None) -> Editor:
        """Loads the editor, onto another device if one is given.

        Raises `InputError` as `freemask.load_editor` does.
        """
        from freemask.editors.registry import load_editor

        return load_editor(self.editor, **self._arguments(device))

    def blueprint(self) -> Editor:
        """Builds the editor on the meta device, from its configs alone; LoRA files are left out.

        Raises `InputError` as `freemask.load_editor` does.
        """
        from freemask.editors.registry import editor_class, load_blueprint, runtime

        half = editor_class(self.editor).half
        return load_blueprint(
            self.editor,
            checkpoint=self.checkpoint,
            dtype=runtime(self.device, self.dtype, half)[1],
            options=self.options,
            revision=self.revision,
            variant=self.variant,
        )

    def preflight(self, request: EditRequest, size: tuple[int, int]) -> Checkpoint:
        """Checks an edit against the checkpoint before weights are read.

        size: of the frames, `(H, W)` pixels.

        Raises `InputError` as `freemask.editors.registry.preflight` does.
        """
        from freemask.editors.registry import preflight

        return preflight(self.editor, request=request, size=size, **self._arguments())

    def native_frame(self) -> NativeFrame:
        """Returns the frame size that the checkpoint was trained at.

        Raises `InputError` as `freemask.editors.registry.native_frame` does.
        """
        from freemask.editors.registry import native_frame

        return native_frame(
            self.editor, self.checkpoint, revision=self.revision, variant=self.variant
        )

    def load_tokenizer(self) -> Any:
        """Returns the checkpoint's tokenizer.

        Raises `InputError` as `freemask.editors.registry.load_tokenizer` does.
        """
        from freemask.editors.registry import load_tokenizer

        return load_tokenizer(
            self.editor,
            self.checkpoint,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            variant=self.variant,
        )

    def latent_time(self) -> LatentTime:
        """Returns how the checkpoint's latent frames cover the frames of a clip.

        Raises `InputError` as `freemask.editors.registry.native_frame` does.
        """
        from freemask.editors.registry import latent_time

        return latent_time(
            self.editor, self.checkpoint, revision=self.revision, variant=self.variant
        )

    def _arguments(self, device: str | None = None) -> dict[str, Any]:
        return {
            "checkpoint": self.checkpoint,
            "device": device or self.device,
            "dtype": self.dtype,
            "options": self.options,
            "revision": self.revision,
            "variant": self.variant,
            "lora": self.lora,
        }
