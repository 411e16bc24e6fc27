"""What a pair of prompts means: the edited words, where to look for them, and how attention carries
over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from freemask.kernels.token_edit import TokenEdit
from freemask.prompts.alignment import align, token_step_ranges, token_weights
from freemask.prompts.edit_kind import edited_words, read_edits, subject_of
from freemask.prompts.tokens import check_prompt, edited_tokens, weights_on, word_tokens
from freemask.settings.sections import FusionSettings
from freemask.types import EditRequest, InputError, WordPair, Words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

OF_TASK = {"background": "kept", "add": "target", "remove": "source"}  # `mask.words` by task


@dataclass(frozen=True)
class Region:
    """A part of the mask, and the word maps that show it.

    words: whose maps show it, as in `MaskSettings.words`.
    pair: number of its pair of words.
    """

    words: str
    pair: int = 0

    def role(self, name: str) -> str:
        """Returns the role of a word: "source", "target" or "kept", numbered after the first
        pair."""
        return f"{name} {self.pair + 1}" if self.pair else name

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles whose maps are read."""
        both = ("source", "target")
        return tuple(map(self.role, both if self.words in ("union", "both") else (self.words,)))


@dataclass(frozen=True, eq=False)
class PromptPair:
    """A source and a target prompt, read by one tokenizer.

    words: the edited words of both, as in `EditRequest`; empty if the edit does not ask for them.
    regions: the parts of the mask, one for each pair; empty without words.
    weights: float32 `(N,)` by role (`Region.role`): 1 on the tokens of its word, 0 elsewhere; of a
        word that a prompt repeats, on the occurrences that change. Empty without words.
    token_edit: how the target's tokens take the source's attention, when, and how strongly.
    """

    words: Words
    weights: Mapping[str, torch.Tensor]
    token_edit: TokenEdit
    regions: tuple[Region, ...] = ()


def prompt_pair(
    tokenizer: Tokenizer,
    request: EditRequest,
    fusion: FusionSettings,
    *,
    needs_words: bool,
    mask_words: str = "source",
) -> PromptPair:
    """Returns what a request's prompts mean under fusion settings.

    needs_words: whether the edit asks for the edited words; words that the request does not name
        are then read from the difference of the prompts.
    mask_words: `mask.words` of the settings. Of several pairs, each has that of its own task.

    Raises `InputError` for prompts that do not fit the tokenizer, for words that are not in their
    prompt, and for words that are needed and cannot be read from the prompts.
    """
    for role in ("source", "target"):
        check_prompt(tokenizer, getattr(request, role), role=role)
    pairs, prompts = request.pairs, (request.source, request.target)
    if needs_words and not pairs:
        pairs = edited_words(*prompts, tokenizer=tokenizer)
    regions: tuple[Region, ...] = ()
    weights: dict[str, torch.Tensor] = {}
    edited: list[int] = []
    if pairs and (needs_words or fusion.word_weight != 1):
        regions = _regions(pairs, request, mask_words)
        for region, pair in zip(regions, pairs, strict=True):
            sides = edited_tokens(tokenizer, prompts, pair)
            edited += sides[1]
            for role, tokens in zip(("source", "target"), sides, strict=True):
                weights[region.role(role)] = weights_on(tokenizer, tokens)
            if region.words == "kept":
                kept = _kept_word(request, pair)
                kept_tokens = word_tokens(tokenizer, request.source, kept, role="source")
                weights[region.role("kept")] = weights_on(tokenizer, kept_tokens)
    token_edit = _token_edit(tokenizer, request, edited, fusion)
    words: Words = pairs[0] if len(pairs) == 1 else pairs
    if not needs_words:
        return PromptPair(words, {}, token_edit)
    return PromptPair(words, weights, token_edit, regions)


def _regions(
    pairs: Sequence[WordPair], request: EditRequest, mask_words: str
) -> tuple[Region, ...]:
    """Returns the region of each pair; a word that a prompt does not have shows none."""
    tasks = {edit.words: edit.task for edit in read_edits(request.source, request.target)}
    regions = []
    for number, (old, new) in enumerate(pairs):
        chosen = mask_words
        if len(pairs) > 1:
            usual = mask_words if mask_words in ("source", "union", "both") else "source"
            chosen = OF_TASK.get(tasks.get((old, new), ""), usual)
        if not old and chosen in ("source", "union", "both"):
            chosen = "target"
        if not new and chosen in ("target", "union", "both"):
            chosen = "source"
        regions.append(Region(chosen, number))
    return tuple(regions)


def _kept_word(request: EditRequest, pair: WordPair) -> str:
    """Returns the word whose object stays. Raises `InputError` if the prompt does not show it."""
    found = request.keep or subject_of(request.source)
    if not found or found in pair:
        raise InputError(
            f"cannot tell which object of {request.source!r} stays while {pair[0] or pair[1]!r} "
            "changes; say it with --keep, as in --keep bear"
        )
    return found


def _token_edit(
    tokenizer: Tokenizer, request: EditRequest, edited: Sequence[int], fusion: FusionSettings
) -> TokenEdit:
    """Returns the token edit of a request.

    edited: tokens of the target's edited words, which `fusion.word_weight` scales.
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
