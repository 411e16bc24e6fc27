"""Draws the training clips, encodes them to latents, and serves both as data sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from freemask.data import sprites
from tools.sprites.stages import ASSETS, FRAMES, SIZE, STAGES, fast_bfloat16
from tools.sprites.tokenizer import encode_captions

DROPPED_CAPTIONS = 0.1  # fraction of examples with the empty caption, for guidance


def draw_pool(work: Path, stage: str, split: sprites.Split = "train") -> tuple[Path, list[str]]:
    """Draws the clips of a stage, unless an earlier call did.

    Returns the file of the frames, uint8 `(N, F, H, W, 3)`, and the captions.
    """
    count, frames = STAGES[stage].examples, FRAMES[stage]
    path = work / f"pool-{count}x{frames}.npy"
    captions = path.with_suffix(".json")
    if not captions.exists():
        pool = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.uint8, shape=(count, frames, *SIZE, 3)
        )
        texts = []
        for seed in tqdm(range(count), desc=f"drawing {path.name}", mininterval=5):
            clip = sprites.sample_scene(seed, split, frames=frames, size=SIZE).render()
            pool[seed] = clip.video.frames
            texts.append(clip.caption)
        pool.flush()
        captions.write_text(json.dumps(texts))
    return path, json.loads(captions.read_text())


def to_pixels(frames: np.ndarray) -> Tensor:
    """Converts uint8 `(..., H, W, 3)` to float `(..., 3, H, W)` in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3).float() / 127.5 - 1


class FrameData(Dataset):
    """The first frames of a pool, as pixels in [-1, 1], for the VAE and for CLIP.

    pool: file of frames, from `draw_pool`.
    tokens: token ids `(N, POSITIONS)` of the captions; None for none.
    """

    def __init__(self, pool: Path, tokens: Tensor | None = None) -> None:
        self.frames, self.tokens = np.load(pool, mmap_mode="r"), tokens

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        example = {"pixels": to_pixels(self.frames[index, 0])}
        if self.tokens is not None:
            example["tokens"] = self.tokens[index]
        return example


class ClipData(Dataset):
    """Clips of a pool, as pixels `(3, F, H, W)` in [-1, 1], for a video VAE.

    pool: file of frames, from `draw_pool`.
    single: whether an example is one random frame of a clip instead of all.
    """

    def __init__(self, pool: Path, *, single: bool = False) -> None:
        self.frames, self.single = np.load(pool, mmap_mode="r"), single

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        clip = self.frames[index]
        if self.single:
            start = int(torch.randint(len(clip), ()))
            clip = clip[start : start + 1]
        return {"pixels": to_pixels(clip).transpose(0, 1)}


class LatentData(Dataset):
    """Latents with the text states of their captions; some captions are dropped.

    latents: `(N, C, h, w)`, or `(N, C, F, h, w)` of clips.
    text: hidden states `(M, POSITIONS, E)` of all distinct captions, the empty one last.
    caption_of: `(N,)`, the index of each example's caption.
    """

    def __init__(self, latents: Tensor, text: Tensor, caption_of: Tensor) -> None:
        self.latents, self.text, self.caption_of = latents, text, caption_of

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        dropped = float(torch.rand(())) < DROPPED_CAPTIONS
        caption = len(self.text) - 1 if dropped else int(self.caption_of[index])
        return {"latents": self.latents[index].float(), "text": self.text[caption].float()}


@torch.no_grad()
def latent_data(work: Path, stage: str) -> LatentData:
    """Encodes the clips of a stage with the exported VAE and text encoder; latents are cached."""
    pool, captions = draw_pool(work, stage)
    cache = work / f"latents-{pool.stem.removeprefix('pool-')}.pt"
    if not cache.exists():
        vae = AutoencoderKL.from_pretrained(
            ASSETS / "sprites-sd" / "vae", torch_dtype=torch.float32
        )
        frames = np.load(pool, mmap_mode="r")
        batches = np.array_split(np.arange(len(frames)), max(1, frames.size // (64 * 64 * 3 * 64)))
        vae.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            latents = [
                vae.encode(to_pixels(frames[b]).flatten(0, 1)).latent_dist.mean.half()
                for b in tqdm(batches, desc=f"encoding {pool.name}", mininterval=5)
            ]
        torch.save(torch.cat(latents), cache)
    latents = torch.load(cache, weights_only=True).unflatten(0, (-1, FRAMES[stage])).transpose(1, 2)
    tokenizer = CLIPTokenizer.from_pretrained(ASSETS / "sprites-sd" / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(
        ASSETS / "sprites-sd" / "text_encoder", torch_dtype=torch.float32
    )
    known = [*sorted(set(captions)), ""]
    tokens = encode_captions(tokenizer, known)
    text = torch.cat([encoder(t).last_hidden_state.half() for t in tokens.split(256)])
    index = {caption: i for i, caption in enumerate(known)}
    caption_of = torch.tensor([index[c] for c in captions])
    return LatentData(latents.squeeze(2), text, caption_of)
