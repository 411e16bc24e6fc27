"""Says which components of diffusers each editor takes, and makes an editor of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec

from freemask.editors.editor import Editor
from freemask.editors.flow_schedule import checked_flow_config
from freemask.editors.registry import editor_class
from freemask.editors.scheduler import checked_config
from freemask.editors.wan_checkpoints import WanBackbone
from freemask.types import InputError

TEXT_TOKENS = 512  # of Wan
TRAINED_STEPS = 1000  # timesteps of Wan's training, in which its boundary is a fraction


@dataclass(frozen=True)
class ModularKind:
    """An editor that is made of components.

    components: class of each component by its name, which is its folder in a checkpoint.
    optional: components that a checkpoint may lack.
    configs: keys of `model_index.json` that the run of the backbone depends on, with defaults.
    make: returns the editor of components; the arguments are those of `make_editor`.
    """

    components: Mapping[str, type]
    make: Callable[[Any, Path | None], Editor]
    optional: tuple[str, ...] = ()
    configs: Mapping[str, Any] | None = None

    def specs(self, checkpoint: str | None = None) -> list[ComponentSpec]:
        """Returns the components as diffusers specifies them.

        checkpoint: the folder or hub id that they are loaded from, if there is one.
        """
        return [
            ComponentSpec(name, kind, pretrained_model_name_or_path=checkpoint, subfolder=name)
            for name, kind in self.components.items()
        ]


def _wan(components: Any, codebook: Path | None) -> Editor:
    config, low = components.config, getattr(components, "transformer_2", None)
    boundary = config.get("boundary_ratio") or 0.0
    kind = editor_class("wan")
    components.tokenizer.model_max_length = TEXT_TOKENS
    return kind(
        backbone=WanBackbone(
            components.transformer,
            low,
            boundary=boundary * TRAINED_STEPS,
            timestep_per_token=bool(config.get("expand_timesteps")),
        ),
        scheduler_config=checked_flow_config(dict(components.scheduler.config), where="scheduler"),
        **_shared(components, kind, codebook),
    )


def _zeroscope(components: Any, codebook: Path | None) -> Editor:
    config, _ = checked_config(components.scheduler.config, where="scheduler")
    kind = editor_class("zeroscope")
    return kind(
        backbone=components.unet,
        scheduler_config=config,
        **_shared(components, kind, codebook),
    )


def _shared(components: Any, kind: type[Editor], codebook: Path | None) -> dict[str, Any]:
    """Returns the arguments that all editors take."""
    return {
        "vae": components.vae,
        "text_encoder": components.text_encoder,
        "tokenizer": components.tokenizer,
        "options": kind.Options(),
        "checkpoint": "components of a ModularPipeline",
        "codebook": codebook,
    }


KINDS: dict[str, ModularKind] = {
    "wan": ModularKind(
        {
            "transformer": diffusers.WanTransformer3DModel,
            "transformer_2": diffusers.WanTransformer3DModel,
            "vae": diffusers.AutoencoderKLWan,
            "text_encoder": transformers.UMT5EncoderModel,
            "tokenizer": transformers.T5TokenizerFast,
            "scheduler": diffusers.UniPCMultistepScheduler,
        },
        _wan,
        optional=("transformer_2",),
        configs={"boundary_ratio": None, "expand_timesteps": False},
    ),
    "zeroscope": ModularKind(
        {
            "unet": diffusers.UNet3DConditionModel,
            "vae": diffusers.AutoencoderKL,
            "text_encoder": transformers.CLIPTextModel,
            "tokenizer": transformers.CLIPTokenizer,
            "scheduler": diffusers.DDIMScheduler,
        },
        _zeroscope,
    ),
}


def modular_kind(editor: str) -> ModularKind:
    """Returns the components of an editor. Raises `InputError` for one without modular blocks."""
    if editor not in KINDS:
        raise InputError(
            f"editor {editor} has no modular blocks: it changes its network while it loads it; "
            f"these have: {', '.join(KINDS)}"
        )
    return KINDS[editor]


def make_editor(editor: str, components: Any, codebook: str | None) -> Editor:
    """Returns an editor of a pipeline's components, which stay its own.

    components: a `ModularPipeline` whose components are loaded.
    codebook: a codebook file, or None.

    Raises `InputError` for a component that is not loaded.
    """
    kind = modular_kind(editor)
    for name in kind.components:
        if name not in kind.optional and getattr(components, name, None) is None:
            raise InputError(f"component {name} is not loaded; call load_components() first")
    for part in ("transformer", "transformer_2", "unet", "vae", "text_encoder"):
        model = getattr(components, part, None)
        if isinstance(model, torch.nn.Module):
            model.eval().requires_grad_(False)
    made = kind.make(components, Path(codebook) if codebook else None)
    backbone = components.unet if editor == "zeroscope" else components.transformer
    made.place(next(backbone.parameters()).device)
    return made
