"""Prompts as tokens.

The room takes a tokenizer and an edit request, and gives the edited words, the tokens of each, and
the matrix that carries the source's cross-attention to the target's tokens. It knows no backbone.
Read `words` (words in any script), `tokens` (words among the tokens of a prompt), `alignment`
(source tokens to target tokens), then `prompt_pair`, the one call that the rest of the library
makes.
"""
