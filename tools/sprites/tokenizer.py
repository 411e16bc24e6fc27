"""Builds the CLIP tokenizer of the demo checkpoints, which knows common words as one token."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

POSITIONS = 32  # tokens of a caption, start and end included
# Words that users are likely to try: each is one token. All other words are spelled out.
EXTRA_WORDS = """
an and at in of with to from by over under near the is it its two three big small little old young
white black brown pink orange purple gray yellow silver dark light bright snowy sandy green wolf fox
rabbit horse sheep bird fish truck boat train man woman child boy girl person dancer skier robot
watermelon apple carrot strawberry table floor room house street forest mountain beach river lake
field desert city park tree trees flower flowers leaf rock stone wall window bridge night day sunset
sunrise rain cloud clouds fire ice walking running eating driving jumping flying swimming sitting
standing dancing playing looking turning through across along behind painting drawing photo video
cartoon anime watercolor oil van gogh pixel art comic wooden metal glass paper toy lego chocolate
""".split()


def build_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Builds a tokenizer for which each word of the captions and of `EXTRA_WORDS` is one token."""
    words = sorted({word for caption in captions for word in caption.split()})
    letters = list(string.printable.strip())
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(words + EXTRA_WORDS + letters, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    return CLIPTokenizer(learned["vocab"], merges, model_max_length=POSITIONS)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Saves a tokenizer, also as `vocab.json` and `merges.txt` for older transformers."""
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [" ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


def encode_captions(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Returns the padded token ids of captions, `(N, POSITIONS)`."""
    ids: Tensor = tokenizer(captions, padding="max_length", return_tensors="pt")["input_ids"]
    return ids
