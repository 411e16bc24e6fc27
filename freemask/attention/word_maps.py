"""Reading word maps off the cross-attention while the backbone inverts a clip.

The map of a word is the mean over heads of the attention probability on its tokens. For the word
of the prompt that the backbone sees it falls out of the attention itself; for a word of another
prompt (a `WordQuery` with text of its own) the same queries are asked about that prompt's keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.profiler import record_function

from freemask import kernels
from freemask.attention.features import FeatureStore
from freemask.attention.hooks import AttentionCall, plain, project_context
from freemask.prompts.tokens import word_weights
from freemask.settings import Settings
from freemask.types import EditRequest, Site, WordMaps


def _probes(
    tokenizer: object, request: EditRequest, settings: Settings, text: Mapping[str, Tensor]
) -> dict[str, WordQuery]:
    p0, p1 = request.words  # type: ignore[misc]
    queries = {"source": WordQuery(word_weights(tokenizer, request.source, p0, "source"))}
    weights = word_weights(tokenizer, request.target, p1, "target")
    if settings.mask.words != "source":
        queries["target"] = WordQuery(weights, text["edit"])
    return queries


Maps = Mapping[tuple[str, Site], Tensor]  # of one entry: (role, site) -> (F, h_l, w_l)


@dataclass(frozen=True, eq=False)
class WordQuery:
    """A word to look for.

    weights: `(N,)`, 1 on the word's tokens and 0 elsewhere.
    text: hidden states `(1, N, E)` of the word's prompt, or None for the prompt that runs.
    """

    weights: Tensor
    text: Tensor | None = None


class WordMapRecorder:
    """The `attend` function of an inversion: plain attention that keeps what fusion needs.

    Until `at` says which entry the backbone sees, nothing is kept.
    """

    def __init__(
        self,
        queries: Mapping[str, WordQuery],
        frames: int,
        *,
        store: FeatureStore | None = None,
        backend: str = "auto",
    ) -> None:
        self.queries, self.frames, self.store, self.backend = queries, frames, store, backend
        self._maps: dict[str, dict[Site, list[Tensor]]] = {role: {} for role in queries}
        self._keeping = False

    def at(self, entry: int | None) -> None:
        """The backbone is about to see the latent of this entry, or one to keep nothing of."""
        self._keeping = entry is not None
        if self.store is not None and entry is not None:
            self.store.at(entry)

    def __call__(self, call: AttentionCall) -> Tensor:
        if not self._keeping:
            return plain(call)
        if self.store is not None:
            self.store.capture(call)
        if call.site.kind != "cross":
            return plain(call)
        out: Tensor | None = None
        for role, query in self.queries.items():
            k, v = (call.k, call.v) if query.text is None else self._keys(call, query.text)
            with record_function("freemask.word_maps"):
                result, word_map = kernels.word_attention(
                    call.q, k, v, word_weights=query.weights.to(call.q.device), backend=self.backend
                )
            out = result if query.text is None else out
            h, w = call.site.resolution
            image = rearrange(word_map, "f (h w) -> f h w", h=h, w=w)
            self._maps[role].setdefault(call.site, []).append(image.float().cpu())
        return plain(call) if out is None else out

    def _keys(self, call: AttentionCall, text: Tensor) -> tuple[Tensor, Tensor]:
        k, v = project_context(call.layer, text.to(call.q))
        frames = self.frames
        return k.expand(frames, -1, -1, -1), v.expand(frames, -1, -1, -1)

    def latest(self) -> Maps:
        """What was read at the entry seen last."""
        return {
            (role, site): maps[-1]
            for role, by_site in self._maps.items()
            for site, maps in by_site.items()
        }

    def restore(self, maps: Maps) -> None:
        """Take what was read at one entry as if it were read now."""
        for (role, site), image in maps.items():
            self._maps[role].setdefault(site, []).append(image)

    def word_maps(self, timesteps: Sequence[int]) -> dict[str, WordMaps]:
        """What was read, by role."""
        return {
            role: WordMaps(
                {site: torch.stack(maps) for site, maps in by_site.items()}, tuple(timesteps)
            )
            for role, by_site in self._maps.items()
        }
