"""Checks checkpoints of Wan, and holds their transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from freemask.editors.checkpoints import Checkpoint, read_config
from freemask.types import InputError

TRANSFORMER = "WanTransformer3DModel"


class WanBackbone(nn.Module):
    """One transformer, or two experts of which the noise level chooses one.

    transformer: of all levels, or of those from the boundary up.
    transformer_2: of the levels below the boundary.
    boundary: timestep of the boundary.
    timestep_per_token: whether a timestep is given for every token, as Wan 2.2 5B expects.
    """

    def __init__(
        self,
        transformer: nn.Module,
        transformer_2: nn.Module | None = None,
        *,
        boundary: float = 0.0,
        timestep_per_token: bool = False,
    ) -> None:
        super().__init__()
        self.transformer, self.transformer_2 = transformer, transformer_2
        self.boundary, self.timestep_per_token = boundary, timestep_per_token

    @property
    def experts(self) -> tuple[Any, ...]:
        """All transformers."""
        return tuple(t for t in (self.transformer, self.transformer_2) if t is not None)

    def at(self, timestep: float) -> Any:
        """Returns the transformer of a timestep."""
        low = self.transformer_2 is not None and timestep < self.boundary
        return self.transformer_2 if low else self.transformer

    @property
    def patch(self) -> int:
        """Latents per token, in both directions."""
        return int(self.experts[0].config.patch_size[-1])

    def predict(self, latents: Tensor, timestep: float, text: Tensor) -> Tensor:
        """Returns the velocity `(B, C, F, h, w)`.

        latents: `(B, C, F, h, w)`, and text: `(B, N, E)`, in the transformer's dtype.
        """
        batch, _, frames, h, w = latents.shape
        tokens = frames * (h // self.patch) * (w // self.patch)
        shape = (batch, tokens) if self.timestep_per_token else (batch,)
        output: Tensor = self.at(timestep)(
            hidden_states=latents,
            timestep=torch.full(shape, timestep, device=latents.device),
            encoder_hidden_states=text,
            return_dict=False,
        )[0]
        return output


def load_umt5(checkpoint: Checkpoint) -> Any:
    """Returns the text encoder, frozen.

    Its token embedding is saved once, as `shared`. Some versions of transformers (its issue 43992)
    leave the encoder's own reference to it empty if the config has `tie_word_embeddings` false, as
    Wan's has.

    Raises `InputError` as `Checkpoint.model` does.
    """
    from transformers import UMT5EncoderModel

    class TiedUMT5EncoderModel(UMT5EncoderModel):
        _keys_to_ignore_on_load_missing = (r"encoder\.embed_tokens\.weight",)

    encoder = checkpoint.model(TiedUMT5EncoderModel, "text_encoder")
    encoder.set_input_embeddings(encoder.shared)
    return encoder


def read_json(path: Path) -> dict[str, Any]:
    """Returns the content of a JSON file. Raises `InputError` when it cannot be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no settings")
    return content


def read_index(files: Checkpoint) -> dict[str, Any]:
    """Returns what a checkpoint's `model_index.json` says about the run of the backbone."""
    path = files.folder / "model_index.json"
    index = read_json(path) if path.exists() else {}
    return {"boundary_ratio": 0.875, "expand_timesteps": False} | {
        key: value for key, value in index.items() if value is not None
    }


def check_text_to_video(files: Checkpoint) -> None:
    """Raises `InputError` unless the configs are of a text-to-video model of Wan."""
    for part in ("transformer", "transformer_2"):
        if part in files.layout.optional and files.extra(part) is None:
            continue
        config = read_config(files.folder / part)
        found = config.get("_class_name")
        if found != TRANSFORMER:
            raise InputError(
                f"checkpoint {files.folder} holds a {found}, this editor needs a {TRANSFORMER}; "
                "`freemask editors` lists which editor loads what"
            )
        if config.get("image_dim") is not None or config.get("added_kv_proj_dim") is not None:
            raise InputError(
                f"checkpoint {files.folder} takes an image as well as text, as image-to-video "
                "models do; take a text-to-video model, such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
            )
        channels, latents = config.get("in_channels"), files.config("vae").get("z_dim", 16)
        if channels != latents:
            raise InputError(
                f"checkpoint {files.folder} takes {channels} channels of latents, its VAE makes "
                f"{latents}: it expects further inputs, such as an image; take a text-to-video "
                "model, such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
            )
        if next(iter(config.get("patch_size", (1, 2, 2)))) != 1:
            raise InputError(f"checkpoint {files.folder} has tokens of several latent frames")
        width = read_config(files.folder / "text_encoder").get("d_model")
        if config.get("text_dim") != width:
            raise InputError(
                f"checkpoint {files.folder}: the text encoder is {width} wide, the transformer "
                f"needs {config.get('text_dim')}; they are of different models"
            )
