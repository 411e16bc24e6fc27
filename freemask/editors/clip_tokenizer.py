"""Makes the tokenizer of Stable Diffusion's text encoders from CLIP's list of merges.

vocabulary = bytes, bytes that end a word, merged pairs, <|startoftext|>, <|endoftext|>
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

MERGES = Path(__file__).parents[1] / "assets" / "clip-merges.txt.gz"
POSITIONS = 77


def clip_tokenizer(*, pad_token: str) -> Any:
    """Returns CLIP's tokenizer for prompts of 77 tokens.

    pad_token: the token that pads prompts; families differ in it.
    """
    from transformers import CLIPTokenizer

    lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    letters = _byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=merges,
        model_max_length=POSITIONS,
        pad_token=pad_token,
    )


def _byte_letters() -> list[str]:
    """Returns the printable letters that stand for bytes in the vocabulary, in its order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [*map(chr, printable), *(chr(256 + n) for n in range(others))]
