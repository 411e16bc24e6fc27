"""Attention layers of a backbone as places where features are read and fused.

The room takes the attention sites of a backbone, masks and settings, and gives word maps and the
fused attention of an edit; every fusion is one call of `freemask.kernels`. Read `hooks` (routes
each layer's queries, keys and values through one function), `token_grid` (masks to rows, rows to
maps), `word_maps` (records maps while the backbone sees the source), `features` (stores queries and
keys in host memory), then `fusion`, where `FUSION_RULES` says when and how source features enter
the edit, `key_channels`, which hides keys from its rows and counts padding, and `branches`, what
the backbone runs in each step. `row_fusion` is the fusion of edits that compute the tokens inside a
mask alone, as `lanes`; `ranks` shares the tokens of a clip between processes.
"""
