"""What a pair of prompts means: the edited words, their tokens, and how attention carries over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from freemask.kernels.token_edit import TokenEdit
from freemask.prompts.alignment import align, token_step_ranges, token_weights
from freemask.prompts.tokens import changed_words, check_prompt, edited_tokens, weights_on
from freemask.settings.sections import FusionSettings
from freemask.types import EditRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True, eq=False)
class PromptPair:
    """A source and a target prompt, read by one tokenizer.

    words: the edited word of each, `(p0, p1)`; empty if the edit does not ask for them.
    weights: float32 `(N,)` by role ("source", "target"): 1 on the tokens of its word, 0 elsewhere;
        of a word that a prompt repeats, on the occurrences that change. Empty without words.
    token_edit: how the target's tokens take the source's attention, when, and how strongly.
    """

    words: tuple[str, str] | tuple[()]
    weights: Mapping[str, torch.Tensor]
    token_edit: TokenEdit


def prompt_pair(
    tokenizer: Tokenizer, request: EditRequest, fusion: FusionSettings, *, needs_words: bool
) -> PromptPair:
    """Returns what a request's prompts mean under fusion settings.

    needs_words: whether the edit asks for the edited words; words that the request does not name
        are then guessed from the difference of the prompts.

    Raises `InputError` for prompts that do not fit the tokenizer, for words that are not in their
    prompt, and for words that are needed and cannot be guessed.
    """
    for role in ("source", "target"):
        check_prompt(tokenizer, getattr(request, role), role=role)
    words = request.words
    if needs_words and not words:
        words = changed_words(request.source, request.target, tokenizer=tokenizer)
    weights: dict[str, torch.Tensor] = {}
    edited: list[int] = []
    if words and (needs_words or fusion.word_weight != 1):
        source, edited = edited_tokens(tokenizer, (request.source, request.target), words)
        tokens = {"source": source, "target": edited}
        weights = {role: weights_on(tokenizer, found) for role, found in tokens.items()}
    token_edit = _token_edit(tokenizer, request, edited, fusion)
    return PromptPair(words, weights if needs_words else {}, token_edit)


def _token_edit(
    tokenizer: Tokenizer, request: EditRequest, edited: Sequence[int], fusion: FusionSettings
) -> TokenEdit:
    """Returns the token edit of a request.

    edited: tokens of the target's edited word, which `fusion.word_weight` scales.
    """
    factors = token_weights(tokenizer, request.target, fusion.reweight)
    if fusion.word_weight != 1:
        factors[list(edited)] = fusion.word_weight
    mapper = align(tokenizer, request.source, request.target, kind=fusion.alignment)
    return (
        TokenEdit.replacement(mapper)
        .reweighted(factors)
        .windowed(token_step_ranges(tokenizer, request.target, fusion.cross_ranges))
    )
