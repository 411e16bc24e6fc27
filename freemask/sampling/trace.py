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
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from freemask import kernels
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

    prompt: the prompt that holds the words; it need not be the one that runs.
    words: one word or several.

    Raises `InputError` for a prompt that does not fit and for a word that is not in it.
    """
    check_prompt(editor.tokenizer, prompt, role="traced")
    names = [words] if isinstance(words, str) else list(words)
    weights = {word: word_weights(editor.tokenizer, prompt, word, role="traced") for word in names}
    traced = TracedMaps(editor.size_multiple, maps={word: {} for word in names})
    text = editor.encode_text([prompt])
    predict = editor.predict

    def traced_predict(latents: Tensor, timestep: float, states: Tensor) -> Tensor:
        h, w = latents.shape[-2:]
        sites = [site for site in editor.sites((h, w)) if site.kind == "cross"]
        traced.timesteps.append(timestep)
        with ExitStack() as hooks:
            for site in sites:
                record = _recorder(editor, traced, site, text, weights, branches=len(latents))
                for layer in editor.layers(site):
                    handle = layer.register_forward_pre_hook(record, with_kwargs=True)
                    hooks.callback(handle.remove)
            return predict(latents, timestep, states)

    editor.predict = traced_predict  # type: ignore[method-assign,assignment]
    try:
        yield traced
    finally:
        del editor.predict


def _recorder(
    editor: Editor,
    traced: TracedMaps,
    site: Site,
    text: Tensor,
    weights: Mapping[str, Tensor],
    *,
    branches: int,
) -> Any:
    """Returns a forward pre-hook that records the maps of one layer.

    branches: branches in a batch, of which the last is recorded.
    """

    @torch.no_grad()
    def record(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        sequences = len(hidden) // branches
        q, k, v = editor.project(layer, hidden[-sequences:], text.to(hidden))
        k, v = (x.expand(sequences, -1, -1, -1) for x in (k, v))
        for word, weight in weights.items():
            _, word_map = kernels.word_attention(q, k, v, word_weights=weight.to(q.device))
            image = row_maps(word_map, site).float().cpu()
            time = editor.latent_time
            frames = time.spread(image, time.frames(len(image)))
            traced.maps[word].setdefault(site, []).append(frames)

    return record
