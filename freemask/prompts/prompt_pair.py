"""freemask.prompts.prompt_pair: docstring to be written."""

from __future__ import annotations

from freemask.kernels.token_edit import TokenEdit
from freemask.prompts import tokens as prompts
from freemask.prompts.alignment import align, token_weights, token_windows
from freemask.settings import Settings, _cross_windows
from freemask.types import EditRequest


def token_edit(tokenizer: object, request: EditRequest, settings: Settings) -> TokenEdit:
    """How the target's tokens take the source's attention, when, and how strongly."""
    fusion = settings.fusion
    alignment = align(
        tokenizer,
        request.source,
        request.target,
        kind=fusion.alignment,  # type: ignore[arg-type]
    )
    factors = dict(fusion.reweight)
    if fusion.word_weight != 1 and request.words:
        factors[request.words[1]] = fusion.word_weight
    windows = _cross_windows(fusion.cross_replace)
    return (
        TokenEdit.replacement(alignment.mapper)
        .reweighted(token_weights(tokenizer, request.target, factors))  # type: ignore[arg-type]
        .windowed(token_windows(tokenizer, request.target, windows))  # type: ignore[arg-type]
    )


def _guess_words(request: EditRequest) -> tuple[str, str]:
    return prompts.changed_words(request.source, request.target)
