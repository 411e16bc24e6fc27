"""Compares the word map with other maps that attention could give of a word, on sprites.

    python -m tools.sprites.map_candidates --editor wan --clips 24 --steps 20

It prints the table "Other maps" of docs/masks-and-mmc.md: for each kind of map the LMMC of its best
site, the cost of its best cell, and the mIoU of the masks of the preset `shape`, where each half of
the clips is masked with the codebook of the other half. Attention maps are written out here, which
the small checkpoints allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import einsum, rearrange
from torch import Tensor

from freemask.attention.hooks import AttentionCall, plain
from freemask.attention.token_grid import row_maps
from freemask.calibration.mmc import ClipCost
from freemask.data.clips import FRAMES, SIZE, CaptionedClip, load_clips, sprites_clips
from freemask.editors.editor import Editor
from freemask.evaluation.metrics import paired_interval
from freemask.progress import show_progress
from freemask.prompts.tokens import word_weights
from freemask.resolve import for_editor
from freemask.sampling.inversion import spread_of
from freemask.sampling.sampler import Watch
from freemask.sampling.samplers import make_sampler
from freemask.settings.presets import load_settings
from freemask.settings.sections import Settings
from freemask.types import Site, WordMaps
from tools.sprites.agreement import (
    MeasuredClip,
    codebook_of,
    halves,
    mask_score,
    print_table,
)

NOISES = 4  # draws of the noise of a noised source
PLAIN = "word map"  # the kind that freemask reads; the others are compared with it
Kinds = Mapping[str, Tensor]  # of one attention call: kind -> (B, N)


def candidate_maps(call: AttentionCall, words: Tensor, wanted: int) -> Kinds:
    """Returns the maps of a word at a cross-attention call, each `(B, N)` and not negative.

    words: `(W, Nk)`, 1 on the tokens of each word of the prompt.
    wanted: which of them.

    - the word map: probability on the word's tokens, mean over heads;
    - its share of the probability on all words, which leaves out padding and end tokens;
    - scores in output space, as ConceptAttention (arXiv 2502.04320) takes them: the product of a
      token's attention output with the value of each word, and their softmax over words. Outputs
      are taken whole, as there, or less their mean over tokens, with products as cosines.
    """
    q, k, v = (x.float() for x in (call.q, call.k, call.v))
    probabilities = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)  # (B, H, N, Nk)
    by_word = einsum(probabilities, words, "b h n k, w k -> b n w") / q.shape[1]
    out = rearrange(probabilities @ v, "b h n d -> b n (h d)")
    values = rearrange(v, "b h k d -> b k (h d)")
    means = einsum(values, words / words.sum(1, keepdim=True), "b k c, w k -> b w c")
    score = einsum(out, means, "b n c, b w c -> b n w") / out.shape[-1] ** 0.5
    centred = torch.nn.functional.normalize(out - out.mean(1, keepdim=True), dim=-1)
    directions = torch.nn.functional.normalize(means - means.mean(1, keepdim=True), dim=-1)
    cosine = einsum(centred, directions, "b n c, b w c -> b n w")
    maps = {
        PLAIN: by_word,
        "share of all words": by_word / by_word.sum(-1, keepdim=True),
        "output space": score.softmax(-1),
        "output space, centred": (cosine / 0.1).softmax(-1),
    }
    return {name: found[..., wanted] for name, found in maps.items()}


@dataclass
class CandidateRecorder:
    """The `attend` function that records every kind of map, `(F, h_l, w_l)` for each call.

    words, wanted: as in `candidate_maps`.
    """

    words: Tensor
    wanted: int
    maps: dict[tuple[str, Site], list[Tensor]] = field(default_factory=dict)

    def __call__(self, call: AttentionCall) -> Tensor:
        """Returns plain attention."""
        if call.site.kind == "cross":
            for name, found in candidate_maps(call, self.words, self.wanted).items():
                self.maps.setdefault((name, call.site), []).append(row_maps(found, call.site))
        return plain(call)


@torch.no_grad()
def recorded(editor: Editor, clip: CaptionedClip, steps: int, seed: int) -> dict[str, WordMaps]:
    """Returns the maps of a clip's word by kind, at every cross site and timestep.

    seed: seed of the noise of a noised source.
    """
    prompt = clip.prompt
    names = list(dict.fromkeys(prompt.split()))
    weights = [word_weights(editor.tokenizer, prompt, name) for name in names]
    recorder = CandidateRecorder(torch.stack(weights), names.index(clip.word))
    sampler = make_sampler(editor.scheduler(steps), for_editor(Settings(), editor), seed=seed)
    text = editor.encode_text([prompt])
    trajectory = sampler.trajectory(
        lambda z, t: editor.predict(z, t, text), editor.encode(clip.video), Watch()
    )
    sites = editor.sites(editor.latent_size(clip.video.size))
    with editor.hooked(sites, recorder):
        for entry, timestep in enumerate(trajectory.timesteps):
            editor.predict(trajectory.latents[entry + 1][None], timestep, text)
    spread = spread_of(editor, clip.video)
    by_kind: dict[str, dict[Site, Tensor]] = {}
    for (name, site), maps in recorder.maps.items():
        by_kind.setdefault(name, {})[site] = torch.stack([spread(one) for one in maps])
    return {name: WordMaps(maps, trajectory.timesteps) for name, maps in by_kind.items()}


def average(draws: Sequence[WordMaps]) -> WordMaps:
    """Returns the mean of maps that were recorded with several noises."""
    sites = draws[0].maps
    maps = {site: torch.stack([one.maps[site] for one in draws]).mean(0) for site in sites}
    return WordMaps(maps, draws[0].timesteps)


def measure(editor: Editor, count: int, steps: int) -> dict[str, list[MeasuredClip]]:
    """Returns held-out clips by kind of map, each measured against its true mask."""
    frames = editor.latent_time.padded(FRAMES)
    draws = NOISES if for_editor(Settings(), editor).source == "noised" else 1
    by_kind: dict[str, list[MeasuredClip]] = {}
    progress = show_progress()
    for done, clip in enumerate(
        load_clips(sprites_clips(count, size=SIZE, frames=frames)), start=1
    ):
        drawn = [recorded(editor, clip, steps, seed) for seed in range(draws)]
        kinds = dict(drawn[0])
        for number in (2, NOISES) if draws > 1 else ():
            kinds[f"{PLAIN}, {number} noises"] = average([one[PLAIN] for one in drawn[:number]])
        assert clip.mask is not None
        truth = torch.from_numpy(clip.mask)
        for name, maps in kinds.items():
            costs = {"true": ClipCost.measure(maps, truth)}
            by_kind.setdefault(name, []).append(MeasuredClip(clip, maps, costs))
        progress("clips", done, count)
    return by_kind


def masked(editor: Editor, clips: Sequence[MeasuredClip]) -> np.ndarray:
    """Returns the mIoU of each clip's mask under the codebook of the half that it is not in, half
    by half."""
    preset, scores = load_settings("shape").mask, []
    for half, others in halves(clips):
        codebook = codebook_of(others, "true")
        scores += [mask_score(editor, clip, preset, codebook) for clip in half]
    return np.array(scores)


def report(editor: Editor, by_kind: Mapping[str, Sequence[MeasuredClip]]) -> list[str]:
    """Returns the lines of the table."""
    scores = {name: masked(editor, clips) for name, clips in by_kind.items()}
    lines = []
    for name, clips in by_kind.items():
        codebook = codebook_of(clips, "true")
        mean, low, high = paired_interval(scores[name], scores[PLAIN])
        lines.append(
            f"LMMC {codebook.lmmc.min():.3f} ({codebook.ranked_sites()[0]}), best cell "
            f"{np.min(codebook.mmc):.3f}, mIoU {scores[name].mean():.3f}, ahead of the {PLAIN} by "
            f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]  {name}"
        )
    return lines


def main() -> None:
    """Measures and prints."""
    print_table(__doc__, "wan", lambda editor, *size: report(editor, measure(editor, *size)))


if __name__ == "__main__":
    main()
