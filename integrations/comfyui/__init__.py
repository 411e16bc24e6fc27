"""FreeMask in ComfyUI: nodes that edit a clip from text and show where a word is.

A batch of images is a clip, and mask 1 = edit. Read `nodes` first: what each node takes and gives.
`work` does what they ask for with freemask, `handle` keeps an editor, and `host` is all that is
asked of ComfyUI itself.
"""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
