"""Embeds frames and prompts with a CLIP model from a folder in transformers' layout.

The package ships `sprites-clip`. FateZero uses `openai/clip-vit-large-patch14`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from freemask.editors.known_messages import without_bars
from freemask.editors.registry import ASSETS
from freemask.io.paths import user_path
from freemask.types import InputError, Video

BATCH = 32  # frames per forward pass
CONFIGS = ("config.json", "preprocessor_config.json")


class ClipEmbedder:
    """A CLIP model with its tokenizer and image processor.

    folder: holds config.json, weights, a tokenizer and preprocessor_config.json.
    device: where the model runs.

    Raises `InputError` for a folder that lacks one of these files or cannot be loaded.
    """

    def __init__(self, folder: str | Path, *, device: torch.device | str = "cpu") -> None:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        folder = user_path(folder)
        missing = [name for name in CONFIGS if not (folder / name).is_file()]
        if missing:
            raise InputError(f"CLIP folder {folder} has no {missing[0]}")

        def load(kind: Any, **options: Any) -> Any:
            with without_bars():
                return kind.from_pretrained(folder, local_files_only=True, **options)

        try:
            self._model = load(CLIPModel, torch_dtype=torch.float32).to(device).eval()
            self._tokenizer, self._processor = load(CLIPTokenizer), load(CLIPImageProcessor)
        except Exception as error:  # errors of transformers and safetensors share no base class
            reason = str(error).splitlines()[0]
            raise InputError(f"CLIP folder {folder} cannot be loaded: {reason}") from error
        positions = self._model.config.text_config.max_position_embeddings
        self._tokenizer.model_max_length = min(self._tokenizer.model_max_length, positions)

    @torch.no_grad()
    def frames(self, video: Video) -> np.ndarray:
        """Returns the embeddings of all frames, `(F, E)`, not normalised."""
        pixels = self._processor(list(video.frames), return_tensors="pt")["pixel_values"]
        model = self._model
        embeddings = [
            model.visual_projection(model.vision_model(batch.to(model.device)).pooler_output)
            for batch in pixels.split(BATCH)
        ]
        return torch.cat(embeddings).cpu().numpy()

    @torch.no_grad()
    def text(self, prompt: str) -> np.ndarray:
        """Returns the embedding of a prompt, `(E,)`, truncated to the text encoder's length."""
        tokens = self._tokenizer(
            [prompt], padding="max_length", truncation=True, return_tensors="pt"
        )["input_ids"]
        model = self._model
        pooled = model.text_model(tokens.to(model.device)).pooler_output
        return model.text_projection(pooled)[0].cpu().numpy()


@lru_cache(maxsize=1)
def load_embedder(folder: str, device: torch.device) -> ClipEmbedder:
    """Loads a CLIP folder, once per process; "demo" is the shipped one."""
    return ClipEmbedder(ASSETS / "sprites-clip" if folder == "demo" else folder, device=device)
