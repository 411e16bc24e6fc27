"""Records word maps from cross-attention while the backbone sees a clip.

The map of a word is the mean over heads of the attention probability on its tokens. For a word of
the running prompt it is a side product of the attention itself; for a word of another prompt (a
`WordQuery` with text of its own) the same queries attend to that prompt's keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import record_function

from freemask import kernels
from freemask.attention.features import FeatureStore
from freemask.attention.hooks import AttentionCall, plain
from freemask.attention.key_channels import with_copies
from freemask.attention.ranks import ALONE, Ranks
from freemask.attention.token_grid import row_maps
from freemask.types import Site, WordMaps

Maps = Mapping[tuple[str, Site], Tensor]  # of one entry: (role, site) -> (F, h_l, w_l)
Spread = Callable[[Tensor], Tensor]  # (F of latent frames, h_l, w_l) -> (F of the clip, h_l, w_l)


@dataclass(frozen=True, eq=False)
class WordQuery:
    """A word whose maps are wanted.

    weights: `(N,)`, 1 on the word's tokens and 0 elsewhere, padding included.
    text: hidden states `(1, N, E)` of the word's prompt; None stands for the running prompt.
    """

    weights: Tensor
    text: Tensor | None = None


class WordMapRecorder:
    """The `attend` function of an inversion: plain attention that records maps and features.

    queries: the wanted words, by role.
    spread: turns a map of each latent frame into one of each frame of the clip.
    store: where queries and keys go with `features=store`; None keeps none.
    backend: backend of `freemask.kernels`.
    ranks: the processes that share the clip's tokens.

    It records nothing until `at` sets an entry.
    """

    def __init__(
        self,
        queries: Mapping[str, WordQuery],
        *,
        spread: Spread = lambda maps: maps,
        store: FeatureStore | None = None,
        backend: str = "auto",
        ranks: Ranks = ALONE,
    ) -> None:
        self.queries, self.spread, self.store, self.backend = queries, spread, store, backend
        self.ranks = ranks
        self.entries: list[int] = []
        self._maps: dict[str, dict[Site, list[Tensor]]] = {role: {} for role in queries}
        self._recording = False

    def at(self, entry: int | None) -> None:
        """Sets the entry whose latent the backbone sees next; None records nothing."""
        self._recording = entry is not None
        if entry is None:
            return
        self.entries.append(entry)
        if self.store is not None:
            self.store.at(entry)

    def __call__(self, call: AttentionCall) -> Tensor:
        """Returns plain attention and records what the call shows."""
        if not self._recording:
            return plain(call)
        if self.store is not None:
            self.store.capture(call)
        if call.site.kind != "cross":
            return plain(call)
        out: Tensor | None = None
        for role, query in self.queries.items():
            result, word_map = self._look(call, query)
            out = result if query.text is None else out
            self._maps[role].setdefault(call.site, []).append(word_map)
        return plain(call) if out is None else out

    def _look(self, call: AttentionCall, query: WordQuery) -> tuple[Tensor, Tensor]:
        k, v = (call.k, call.v) if query.text is None else self._keys(call, query.text)
        width = call.q.shape[-1]
        with record_function("freemask.word_maps"):
            result, word_map = kernels.word_attention(
                **with_copies({"q": call.q, "k": k, "v": v}, call.tokens),
                word_weights=query.weights[: k.shape[2]].to(call.q.device),
                scale=width**-0.5,
                backend=self.backend,
            )
        if call.site.span == "clip":
            word_map = self.ranks.gather_all(word_map, 1)
        return result[..., :width], self.spread(row_maps(word_map, call.site).float().cpu())

    def _keys(self, call: AttentionCall, text: Tensor) -> tuple[Tensor, Tensor]:
        k, v = call.project_text(text.to(call.q))
        return k.expand(len(call.q), -1, -1, -1), v.expand(len(call.q), -1, -1, -1)

    def latest(self) -> Maps:
        """Returns the maps of the last entry."""
        return {
            (role, site): maps[-1]
            for role, by_site in self._maps.items()
            for site, maps in by_site.items()
        }

    def restore(self, maps: Maps) -> None:
        """Appends the maps of the next entry, which an earlier attempt recorded."""
        self.entries.append(len(self.entries))
        for (role, site), word_map in maps.items():
            self._maps[role].setdefault(site, []).append(word_map)

    def word_maps(self, timesteps: Sequence[float]) -> dict[str, WordMaps]:
        """Returns all maps by role.

        timesteps: the T timesteps of the run, ascending; an entry is an index into them.
        """
        recorded = tuple(timesteps[entry] for entry in self.entries)
        return {
            role: WordMaps({site: torch.stack(maps) for site, maps in by_site.items()}, recorded)
            for role, by_site in self._maps.items()
        }
