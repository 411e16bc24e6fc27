"""Attention layers of a backbone as places where features are read and fused.

The room takes a UNet, masks and settings, and gives its attention sites, their word maps, and the
fused attention of an edit; every fusion is one call of `freemask.kernels`. Read `sites` (finds the
layers), `hooks` (routes each layer's queries, keys and values through one function), `word_maps`
(records maps during inversion), `features` (stores queries and keys in host memory), then `fusion`,
where `FUSION_RULES` says when and how source features enter the edit.
"""
