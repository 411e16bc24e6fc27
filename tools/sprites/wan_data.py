"""Serves batches of clips of one length to the training of `sprites-wan`.

The VAE is causal, so the first latent frames of a clip are those of its first frames: clips of 13
frames hold clips of 9, 5 and 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from freemask.data import sprites
from freemask.editors.wan_vae import WanVae
from tools.sprites.data import DROPPED_CAPTIONS
from tools.sprites.networks import shipped
from tools.sprites.stages import ASSETS, fast_bfloat16
from tools.sprites.wan import channels_last

TOKENS = 16  # of a caption, with at least one of padding
POOLS = ((9, (64, 64), 5000), (13, (64, 64), 1800))  # frames, size and number of clips
EMPTY = 15  # of so many clips of 9 frames one has no object, so that a place without one is known
LENGTHS = {1: 0.3, 2: 0.1, 3: 0.4, 4: 0.2}  # latent frames of a batch -> its share
EARLY = (0.4, 0.9)  # share of the training in which single frames recede, and theirs at the start
BATCH_TOKENS = 3072  # tokens in a batch of one process
HELD_OUT_SEED = 2_500_000  # of the first held-out scene


def encoded(
    vae: WanVae, seeds: Sequence[int], split: sprites.Split, frames: int, size: tuple[int, int]
) -> tuple[Tensor, list[str]]:
    """Returns the latents `(N, C, F, h, w)` of drawn clips, in float16, and their captions."""
    latents, captions = [], []
    for seed in tqdm(seeds, desc=f"encoding {frames} frames of {size}", mininterval=10):
        scene = sprites.sample_scene(seed, split, frames=frames, size=size)
        bare = split == "train" and frames == 9 and seed % EMPTY == 0
        clip = (scene.counterfactual(object=None) if bare else scene).render()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            latents.append(vae.encode(clip.video.frames, frames).half())
        captions.append(clip.caption)
    return torch.cat(latents), captions


def exported_vae() -> WanVae:
    """Loads the exported VAE."""
    vae = AutoencoderKLWan.from_pretrained(
        ASSETS / "sprites-wan" / "vae", torch_dtype=torch.float32
    )
    return WanVae(channels_last(vae.eval()))


def encoder_hash(vae: dict[str, Tensor]) -> str:
    """Returns a hash of the weights of a VAE that decide its latents."""
    digest = hashlib.sha256()
    for name, weight in sorted(vae.items()):
        if name.startswith(("encoder.", "quant_conv.")):
            unsigned_zero = weight.half() + 0  # moving averages lose the sign of a zero
            digest.update(name.encode() + unsigned_zero.numpy().tobytes())
    return digest.hexdigest()[:8]


def latent_pools(work: Path, processes: int = 1) -> list[dict[str, Any]]:
    """Returns the latents and captions of all training clips, from the cache if they are there.

    The name of a cache tells the weights of the encoder, so that another one makes new latents.

    processes: number of processes that encode clips.
    """
    vae = encoder_hash(shipped("sprites-wan", "vae"))
    pools = []
    for frames, size, count in POOLS:
        cache = work / f"wan-latents-{vae}-{count}x{frames}-{size[0]}x{size[1]}.pt"
        if not cache.exists():
            share = partial(_encoded_share, frames, size)
            parts = [range(count)[n::processes] for n in range(processes)]
            with ProcessPoolExecutor(processes, get_context("fork")) as executor:
                made = list(executor.map(share, parts))
            latents = torch.from_numpy(np.concatenate([latents for latents, _ in made]))
            captions = [caption for _, captions in made for caption in captions]
            torch.save({"latents": latents, "captions": captions}, cache)
        pools.append(torch.load(cache, weights_only=True))
    return pools


def _encoded_share(
    frames: int, size: tuple[int, int], seeds: Sequence[int]
) -> tuple[np.ndarray, list[str]]:
    """Returns latents and captions of training clips; it runs in a process of its own."""
    torch.set_num_threads(1)
    latents, captions = encoded(exported_vae(), seeds, "train", frames, size)
    return latents.numpy(), captions


def caption_tokens(tokenizer: Any, captions: Sequence[str]) -> dict[str, Tensor]:
    """Returns the ids and the mask of captions, each `(N, TOKENS)`."""
    made = tokenizer(
        list(captions),
        padding="max_length",
        max_length=TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    mask = made["attention_mask"]
    assert int(mask.sum(1).max()) < TOKENS, "a caption leaves no padding"
    return {"tokens": made["input_ids"], "mask": mask}


class ClipBatches(Dataset):
    """Batches of clips, each of one length and size; an index is the number of a batch.

    Batches come from each pool in proportion to its clips.

    pools: from `latent_pools`.
    tokenizer: of the captions, some of which are dropped.
    count: number of batches.
    processes: number of processes; neighbouring batches that they train on have one length.
    early: whether the training starts from nothing. Single frames come first then: a batch holds
        more of them, and they are enough to learn what the captions name.
    """

    def __init__(
        self,
        pools: Sequence[dict[str, Any]],
        tokenizer: Any,
        count: int,
        processes: int,
        *,
        early: bool = False,
    ) -> None:
        self.pools, self.count, self.processes, self.early = pools, count, processes, early
        self.text = [caption_tokens(tokenizer, [*pool["captions"], ""]) for pool in pools]

    def __len__(self) -> int:
        return self.count

    def _shares(self, index: int) -> np.ndarray:
        """Returns the share of each length in a batch."""
        until, first = EARLY
        shares = np.array(list(LENGTHS.values()))
        early = max(0.0, 1 - index / (until * self.count)) if self.early else 0.0
        single = shares[0] + early * (first - shares[0])
        return np.array([single, *shares[1:] * (1 - single) / (1 - shares[0])])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        shared = np.random.default_rng(index // self.processes)  # the same for all processes
        length = int(shared.choice(list(LENGTHS), p=self._shares(index)))
        fitting = [n for n, pool in enumerate(self.pools) if pool["latents"].shape[2] >= length]
        clips_of = np.array([len(self.pools[n]["latents"]) for n in fitting])
        chosen = int(shared.choice(fitting, p=clips_of / clips_of.sum()))
        latents, text = self.pools[chosen]["latents"], self.text[chosen]
        tokens = length * latents.shape[3] * latents.shape[4] // 4
        clips = torch.randint(len(latents), (BATCH_TOKENS // tokens,))
        dropped = torch.rand(len(clips)) < DROPPED_CAPTIONS
        captions = torch.where(dropped, len(latents), clips)  # the last caption is empty
        return {
            "latents": latents[clips][:, :, :length].float(),
            "tokens": text["tokens"][captions],
            "mask": text["mask"][captions],
        }
