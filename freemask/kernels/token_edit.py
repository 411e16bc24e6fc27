"""Turns Prompt-to-Prompt edits of cross-attention into values.

Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626) edits maps: with the source's map `P_s` over
the `Ns` source tokens and the edit's `P_e` over the `Nt` target tokens, the edited map is

    P = (P_s R diag(alpha) + P_e diag(1 - alpha)) diag(w)

`R (Ns, Nt)` carries the source's attention to the target's tokens (replace: word to word; refine:
token to token), `alpha (Nt,)` is 1 where a token takes the source's attention and 0 where it keeps
the edit's (new words, and every token outside its step range), and `w (Nt,)` reweights tokens. All
of them multiply the map from the right and therefore act on V:

    P V = P_s [R diag(alpha w) V] + P_e [diag((1 - alpha) w) V]

Rows inside a mask use the edit's own map, reweighted: `P_e [diag(w) V]`. The three bracketed
tensors are `source`, `kept` and `edit` of `TokenValues`; one `blended_attention` call takes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TokenValues:
    """The values of one cross-attention edit: `blended_attention(q, k, **values.arguments(), ...)`.

    edit: `(B, H, Nt, D)`, for rows inside the mask.
    source: `(B, H, Ns, D)`, for the source's attention of rows outside.
    kept: `(B, H, Nt, D)`, for the edit's attention of rows outside; None if every token takes the
        source's attention.
    """

    edit: Tensor
    source: Tensor
    kept: Tensor | None

    def arguments(self) -> dict[str, Tensor | None]:
        """Returns the values as keyword arguments of `blended_attention`."""
        return {"v": self.edit, "v_source": self.source, "v_kept": self.kept}


@dataclass(frozen=True, eq=False)
class TokenFactors:
    """What the values of one cross-attention edit are multiplied with, in float64.

    edit: `w (Nt,)`.
    source: `R diag(alpha w) (Ns, Nt)`.
    kept: `(1 - alpha) w (Nt,)`; None if every token takes the source's attention.
    """

    edit: Tensor
    source: Tensor
    kept: Tensor | None

    def to(self, like: Tensor) -> TokenFactors:
        """Returns the factors on a tensor's device, in float64 for float64, else in float32."""
        wide = torch.float64 if like.dtype == torch.float64 else torch.float32
        kept = None if self.kept is None else self.kept.to(like.device, wide)
        return TokenFactors(
            self.edit.to(like.device, wide), self.source.to(like.device, wide), kept
        )

    def values(self, v: Tensor) -> TokenValues:
        """Returns the transformed values.

        v: values of the target's tokens, `(B, H, Nt, D)`.

        Values are computed in float64 for float64 and in float32 otherwise, then rounded once to
        the dtype of `v`. Raises ValueError if `v` has another number of tokens.
        """
        if v.ndim != 4 or v.shape[2] != len(self.edit):
            raise ValueError(
                f"values must be (B, H, Nt, D) with the {len(self.edit)} target tokens of "
                f"the edit, got {tuple(v.shape)}"
            )
        factors = self.to(v)
        wide = v.to(factors.edit.dtype)
        kept = None if factors.kept is None else (factors.kept[:, None] * wide).to(v.dtype)
        return TokenValues(
            (factors.edit[:, None] * wide).to(v.dtype), (factors.source @ wide).to(v.dtype), kept
        )


@dataclass(frozen=True, eq=False)
class TokenEdit:
    """How target tokens take over the attention of source tokens.

    mapper: `R (Ns, Nt)`, non-negative; column n distributes target token n over source tokens. An
        all-zero column marks a new token, which keeps the edit's attention.
    weights: `w (Nt,)`, the factor of each target token; 1 changes nothing.
    windows: `(Nt, 2)`, the step range `[start, end)` in which each token takes the source's
        attention, in fractions of the denoising run (`cross_replace_steps` of Prompt-to-Prompt).

    Build one with `replacement`, then chain `reweighted` and `windowed`.
    """

    mapper: Tensor
    weights: Tensor
    windows: Tensor

    @classmethod
    def replacement(cls, mapper: Tensor) -> TokenEdit:
        """Builds the edit of a word-to-word matrix `(Ns, Nt)`.

        A word of several tokens divides its attention among them. Raises ValueError for another
        shape or a negative entry.
        """
        if mapper.ndim != 2 or bool((mapper < 0).any()):
            raise ValueError(
                f"a mapper is a non-negative matrix (source tokens, target tokens), "
                f"got {tuple(mapper.shape)}"
            )
        mapper = mapper.to(torch.float64)
        tokens = mapper.shape[1]
        always = torch.tensor([0.0, 1.0], dtype=torch.float64, device=mapper.device)
        return cls(mapper, mapper.new_ones(tokens), always.expand(tokens, 2))

    def reweighted(self, weights: Tensor) -> TokenEdit:
        """Returns the edit with its weights multiplied by `weights (Nt,)`."""
        self._per_token("weights", weights, (self.mapper.shape[1],))
        return replace(self, weights=self.weights * weights.to(self.weights))

    def windowed(self, windows: Tensor) -> TokenEdit:
        """Returns the edit with step ranges `(2,)` for all tokens or `(Nt, 2)`, in [0, 1]."""
        if tuple(windows.shape) != (2,):
            self._per_token("windows", windows, (self.mapper.shape[1], 2))
        start, end = windows.unbind(-1)
        if not bool(((start >= 0) & (start <= end) & (end <= 1)).all()):
            raise ValueError(
                f"a step range is [start, end) with 0 <= start <= end <= 1, got {windows.tolist()}"
            )
        return replace(self, windows=windows.to(self.mapper).expand(self.mapper.shape[1], 2))

    def alpha(self, progress: float) -> Tensor:
        """Returns `(Nt,)`: 1 where a token takes the source's attention at `progress` in [0, 1)."""
        start, end = self.windows.unbind(-1)
        open_now = (start <= progress) & (progress < end)
        return (open_now & (self.mapper.sum(0) > 0)).to(self.mapper.dtype)

    def at(
        self, progress: float, *, source: int | None = None, target: int | None = None
    ) -> TokenFactors:
        """Returns what a point of the run multiplies values with.

        progress: fraction of the denoising run, in [0, 1).
        source, target: number of keys that stand for the prompt's tokens. The last stands for all
            tokens from there on, whose keys and values are equal, as those of padding are. None is
            one key for each token.
        """
        alpha, (source_tokens, target_tokens) = self.alpha(progress), self.mapper.shape
        source, target = source or source_tokens, target or target_tokens
        carried = _fold(self.mapper * (alpha * self.weights), source)
        carried[:, target - 1] = carried[:, target - 1 :].sum(1)
        kept = None if bool((alpha == 1).all()) else _fold((1 - alpha) * self.weights, target)
        return TokenFactors(_fold(self.weights, target), carried[:, :target], kept)

    def values(self, v: Tensor, progress: float = 0.0) -> TokenValues:
        """Returns the transformed values at a point of the run: those of `at(progress)`.

        v: values of the target's tokens, `(B, H, Nt, D)`.
        progress: fraction of the denoising run, in [0, 1).

        Raises ValueError if `v` has another number of tokens.
        """
        return self.at(progress).values(v)

    @staticmethod
    def _per_token(name: str, given: Tensor, expected: tuple[int, ...]) -> None:
        if tuple(given.shape) != expected:
            raise ValueError(
                f"{name} must be {expected}, one entry per target token, got {tuple(given.shape)}"
            )


def _fold(factors: Tensor, count: int) -> Tensor:
    """Returns the first `count` of the factors `(N, ...)`, the last of them the mean of the rest:
    one key that counts for several gives each of them an equal share."""
    return torch.cat([factors[: count - 1], factors[count - 1 :].mean(0, keepdim=True)])
