"""The Triton kernels: `blended_attention` and `word_attention` on CUDA and ROCm, one launch each.

`freemask.kernels.dispatch` imports this room when a Triton kernel first runs; no other shipped room
imports Triton. Validated tensors `(B, H, N, D)` go in, outputs of the same layout come out. Read
`attend` first, the inner loop of both kernels. Then read `blended` and `word`, each a kernel and
its launch. `tiles` holds the block sizes by architecture, and `launch` makes views and grids.
"""
