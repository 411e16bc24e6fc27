"""A T5 tokenizer, as Wan's is one, whose words have known numbers of tokens."""

from __future__ import annotations

import string

from tokenizers import normalizers
from transformers import T5TokenizerFast
from word_tokenizer import LENGTH, PARTS, WHOLE

CHINESE = ("一只", "▁一只", "熊", "熊猫", "在", "雪地", "里", "草地", "白色", "追", "\uff0c")
PIECE, LETTER, UNKNOWN = -5.0, -15.0, -20.0  # log probabilities: a piece beats its letters


def make_piece_tokenizer(length: int = LENGTH) -> T5TokenizerFast:
    """`giraffe` and `elephant` are two tokens, the words of `WHOLE` are one, `▁` is one.

    Other words are spelt in letters, with `▁` alone in front. Letters are normalised as in UMT5.
    """
    first, second = PARTS[::2], PARTS[1::2]
    pieces = [f"▁{word}" for word in (*WHOLE, *first)] + [*second, *CHINESE]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", UNKNOWN)]
    vocab += [(piece, PIECE) for piece in pieces]
    letters = ("▁", *string.ascii_letters, *",.'\"&-", "é", "\u2019")
    vocab += [(letter, LETTER) for letter in letters]
    tokenizer = T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=length)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    return tokenizer


PIECES = make_piece_tokenizer()
LONG = make_piece_tokenizer(512)
