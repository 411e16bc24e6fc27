"""Base editors: pretrained video backbones behind one interface.

A checkpoint comes in: a folder in diffusers' layout, a hub id, or one file of Stable Diffusion. An
`Editor` comes out, which encodes clips and prompts, predicts a denoising step, names its attention
sites and hooks them. Read `editor` first: it is the interface, with `checkpoint_format` (how its
checkpoints are read) and `latent_time` (how latent frames cover frames). `unet_editor` is what the
UNets share: `unet_sites` finds their attention, `unet_attention` projects it. `zeroscope` is the
shortest backbone and `animatediff` the next. `inflated` runs Stable Diffusion over a clip, and
`text2video_zero` needs no more than that; `temporal_layers` and `tuned` add the layers of tuned
checkpoints, which `tune_a_video` and `fatezero` use. `wan` is a transformer, with
`wan_checkpoints`, `wan_attention`, `wan_vae` and `wan_options`; `wan_rows` runs some of its tokens.

They all rest on `checkpoints` (the parts of a folder), which asks `hub` for what is not here,
`weight_files` for the right files and `state_dicts` for their content. `single_file` reads the
original layout with `clip_tokenizer`; `lora` adds LoRA files. `latents` is the VAE, `scheduler` the
noise schedule of a UNet and `flow_schedule` the levels of flow matching, and `native_size` the
frames that a checkpoint was trained on. `known_messages` hides what the libraries print about
things that are handled here. `registry` names the editors and loads them, and `request` is one that
was asked for. `backbone_calls` counts what a backbone computes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freemask.editors.editor import Editor
    from freemask.editors.registry import (
        EDITORS,
        available,
        editor_class,
        load_editor,
        preflight,
        register,
    )
    from freemask.editors.unet_editor import UNetEditor

__all__ = [
    "EDITORS",
    "Editor",
    "UNetEditor",
    "available",
    "editor_class",
    "load_editor",
    "preflight",
    "register",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that this door costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'freemask.editors' has no attribute {name!r}")
    home = {"Editor": "editor", "UNetEditor": "unet_editor"}.get(name, "registry")
    return getattr(importlib.import_module(f"freemask.editors.{home}"), name)
