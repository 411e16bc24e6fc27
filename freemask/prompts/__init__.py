"""Prompts as tokens.

The room takes a tokenizer and an edit request, and gives the edited words, the tokens of each, and
the matrix that carries the source's cross-attention to the target's tokens. It knows no backbone.
Read `words` (words in any script), `layout` (where a tokenizer puts words among its tokens) with
`clip_layout` and `offset_layout` (the families of tokenizers), `cleaning` (prompts as Wan encodes
them), `tokens` (a word's tokens), `lexicon` and `edit_kind` (which words two prompts change, and
what kind of edit that is), `alignment` (source tokens to target tokens), then `prompt_pair`, the
one call that the rest of the library makes.
"""
