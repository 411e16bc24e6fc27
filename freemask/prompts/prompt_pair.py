"""What a pair of prompts means: the edited words, their tokens, and how attention carries over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from freemask.kernels.token_edit import TokenEdit
from freemask.prompts.alignment import align, token_step_ranges, token_weights
from freemask.prompts.tokens import changed_words, check_prompt, word_weights
from freemask.settings import FusionSettings
from freemask.types import EditRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True, eq=False)
class PromptPair:
    """A source and a target prompt, read by one tokenizer.

    words: the edited word of each, `(p0, p1)`; empty if the edit does not ask for them.
    weights: float32 `(N,)` by role ("source", "target"): 1 on the tokens of its word, 0 elsewhere;
        empty without words.
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
        words = changed_words(request.source, request.target)
    weights = {}
    if needs_words and words:
        prompts = {"source": request.source, "target": request.target}
        weights = {
            role: word_weights(tokenizer, prompt, word, role=role)
            for (role, prompt), word in zip(prompts.items(), words, strict=True)
        }
    return PromptPair(words, weights, _token_edit(tokenizer, request, words, fusion))


def _token_edit(
    tokenizer: Tokenizer,
    request: EditRequest,
    words: tuple[str, str] | tuple[()],
    fusion: FusionSettings,
) -> TokenEdit:
    factors = dict(fusion.reweight)
    if fusion.word_weight != 1 and words:
        factors[words[1]] = fusion.word_weight
    mapper = align(tokenizer, request.source, request.target, kind=fusion.alignment)
    return (
        TokenEdit.replacement(mapper)
        .reweighted(token_weights(tokenizer, request.target, factors))
        .windowed(token_step_ranges(tokenizer, request.target, fusion.cross_ranges))
    )
