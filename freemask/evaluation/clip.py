"""CLIP embeddings of frames and prompts, from any `CLIPModel` folder in transformers' layout.

The shipped `sprites-clip` is one; `openai/clip-vit-large-patch14` is what FateZero measures with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from freemask.types import InputError, Video

BATCH = 32  # frames that are embedded at a time
PARTS = ("config.json", "preprocessor_config.json")


class ClipEmbedder:
    """A CLIP model with its tokenizer and its picture of how frames are prepared.

    folder: holds config.json, weights, a tokenizer and preprocessor_config.json. Raises
    `InputError` for a folder that lacks one of them or cannot be loaded.
    """

    def __init__(self, folder: str | Path, *, device: torch.device | str = "cpu") -> None:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        folder = Path(folder)
        missing = [name for name in PARTS if not (folder / name).is_file()]
        if missing:
            raise InputError(f"CLIP folder {folder} has no {missing[0]}")

        def load(part: Any, **options: Any) -> Any:
            return part.from_pretrained(folder, local_files_only=True, **options)

        try:
            self._model = load(CLIPModel, torch_dtype=torch.float32).to(device).eval()
            self._tokenizer, self._processor = load(CLIPTokenizer), load(CLIPImageProcessor)
        except Exception as error:  # theirs and those of safetensors share no base class
            reason = str(error).splitlines()[0]
            raise InputError(f"CLIP folder {folder} cannot be loaded: {reason}") from error
        positions = self._model.config.text_config.max_position_embeddings
        self._tokenizer.model_max_length = min(self._tokenizer.model_max_length, positions)

    @torch.no_grad()
    def frames(self, video: Video) -> np.ndarray:
        """Embeddings of all frames, `(F, E)`, not normalised."""
        pixels = self._processor(list(video.frames), return_tensors="pt")["pixel_values"]
        model = self._model
        parts = [
            model.visual_projection(model.vision_model(batch.to(model.device)).pooler_output)
            for batch in pixels.split(BATCH)
        ]
        return torch.cat(parts).cpu().numpy()

    @torch.no_grad()
    def text(self, prompt: str) -> np.ndarray:
        """Embedding of a prompt, `(E,)`; what does not fit the text encoder is cut off."""
        tokens = self._tokenizer(
            [prompt], padding="max_length", truncation=True, return_tensors="pt"
        )["input_ids"]
        model = self._model
        pooled = model.text_model(tokens.to(model.device)).pooler_output
        return model.text_projection(pooled)[0].cpu().numpy()
