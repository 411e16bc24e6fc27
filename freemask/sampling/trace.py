"""Records the word maps of whatever an editor runs, for looking at them (as DAAM does).

    with freemask.trace(editor, "a bear on the grass", "bear") as maps:
        freemask.generate(editor, "a bear on the grass")
    maps.heat()   # float32 (F, H, W) in [0, 1]

Hooks read the inputs of the cross-attention layers and leave every output as it is, so a trace
works around generation, inversion and edits alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from freemask import kernels
from freemask.attention.lanes import Lane
from freemask.attention.token_grid import row_maps
from freemask.editors.editor import Editor
from freemask.masks.heat import heat, mean_heat
from freemask.prompts.tokens import check_prompt, word_weights
from freemask.types import InputError, Site, WordMaps


@dataclass(eq=False)
class TracedMaps:
    """Word maps of the last branch of every batch that the backbone ran.

    timesteps: one per run of the backbone, in order.
    maps: word -> cross site -> `(F, h_l, w_l)` in [0, 1], one per run.
    pixels: pixels per token of the finest site, in both directions.
    """

    pixels: int
    timesteps: list[float] = field(default_factory=list)
    maps: dict[str, dict[Site, list[Tensor]]] = field(default_factory=dict)

    def of(self, word: str = "") -> WordMaps:
        """Returns the maps of a word, `(T, F, h_l, w_l)` by site; by default of the only word.

        Raises `InputError` for a word that was not traced, and if nothing ran.
        """
        word = word or next(iter(self.maps))
        if word not in self.maps:
            raise InputError(f"word {word!r} is not traced; traced are: {', '.join(self.maps)}")
        if not self.timesteps:
            raise InputError("the trace is empty; run the editor inside the context")
        by_site = {site: torch.stack(maps) for site, maps in self.maps[word].items()}
        return WordMaps(by_site, tuple(self.timesteps))

    def heat(self, word: str = "", size: tuple[int, int] | None = None) -> Tensor:
        """Returns the mean of a word's maps over sites and runs, `(F, H, W)`, 1 at each frame's
        maximum; `size (H, W)` is the clip's by default."""
        maps = self.of(word).maps
        finest = max(site.resolution for site in maps if site.level == 0)
        size = size or (finest[0] * self.pixels, finest[1] * self.pixels)
        every = (one for stacked in maps.values() for one in stacked)
        return mean_heat((heat(one, size, max_pool=False) for one in every), "arithmetic")


@contextmanager
def trace(editor: Editor, prompt: str, words: str | Sequence[str]) -> Iterator[TracedMaps]:
    """Records the word maps of everything that the editor's backbone runs inside the context.

    Where an edit computes only the tokens inside its mask, each lane (`attention.lanes`) is a run
    of its own, and its maps are zero at the tokens that it does not carry.

    prompt: the prompt that holds the words; it need not be the one that runs.
    words: one word or several.

    Raises `InputError` for a prompt that does not fit and for a word that is not in it.
    """
    check_prompt(editor.tokenizer, prompt, role="traced")
    names = [words] if isinstance(words, str) else list(words)
    weights = {word: word_weights(editor.tokenizer, prompt, word, role="traced") for word in names}
    traced = TracedMaps(editor.size_multiple, maps={word: {} for word in names})
    text = editor.encode_text([prompt])
    predict, predict_lanes = editor.predict, editor.predict_lanes

    @contextmanager
    def recording(latents: Tensor, running: list[_Batch]) -> Iterator[None]:
        h, w = latents.shape[-2:]
        with ExitStack() as hooks:
            for site in (site for site in editor.sites((h, w)) if site.kind == "cross"):
                record = _recorder(editor, traced, site, text, weights, running)
                for layer in editor.layers(site):
                    handle = layer.register_forward_pre_hook(record, with_kwargs=True)
                    hooks.callback(handle.remove)
            yield

    def traced_predict(latents: Tensor, timestep: float, states: Tensor) -> Tensor:
        traced.timesteps.append(timestep)
        with recording(latents, [_Batch(len(latents))]):
            return predict(latents, timestep, states)

    def traced_lanes(lanes: Sequence[Lane], timestep: float) -> list[Tensor]:
        traced.timesteps += [timestep] * len(lanes)
        running: list[_Batch] = []

        def entering(lane: Lane) -> Lane:
            def enter() -> None:
                running[:] = [_Batch(len(lane.latents), lane)]
                lane.enter()

            return replace(lane, enter=enter)

        with recording(lanes[0].latents, running):
            return predict_lanes([entering(lane) for lane in lanes], timestep)

    vars(editor).update(predict=traced_predict, predict_lanes=traced_lanes)
    try:
        yield traced
    finally:
        del editor.predict, editor.predict_lanes


@dataclass(frozen=True, eq=False)
class _Batch:
    """What passes a layer: a number of branches, over all tokens or over those of a lane."""

    branches: int
    lane: Lane | None = None

    def whole(self, word_map: Tensor) -> Tensor:
        """Returns a map of all tokens, `(B, N)`, zero at those that a lane does not carry."""
        if self.lane is None:
            return word_map
        every = word_map.new_zeros(len(word_map), self.lane.total)
        every[:, self.lane.tokens] = word_map
        return every


def _recorder(
    editor: Editor,
    traced: TracedMaps,
    site: Site,
    text: Tensor,
    weights: Mapping[str, Tensor],
    running: list[_Batch],
) -> Any:
    """Returns a forward pre-hook that records the maps of one layer.

    running: holds the batch that passes now; its last branch is recorded.
    """

    @torch.no_grad()
    def record(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        sequences = len(hidden) // running[0].branches
        q, k, v = editor.project(layer, hidden[-sequences:], text.to(hidden))
        k, v = (x.expand(sequences, -1, -1, -1) for x in (k, v))
        for word, weight in weights.items():
            _, word_map = kernels.word_attention(q, k, v, word_weights=weight.to(q.device))
            image = row_maps(running[0].whole(word_map), site).float().cpu()
            time = editor.latent_time
            frames = time.spread(image, time.frames(len(image)))
            traced.maps[word].setdefault(site, []).append(frames)

    return record
