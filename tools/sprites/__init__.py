"""Trains, exports and validates the demo checkpoints on clips of moving sprites.

    python -m tools.sprites.train vae clip sd t2v motion wan_image wan_vae wan
    python -m tools.sprites.validate

Names of stages go in; weights in diffusers' folder layout come out, in `freemask/assets`. Read
`stages` (size and schedule of each stage's training), `networks` (their architectures), `tokenizer`
(of their text encoder), `data` (clips and latents), `train` (trains the stages), `export` (writes
the checkpoints, with `weights`) and `validate` (measures them on held-out clips). `wan`, `wan_data`
and `wan_export` are the same for `sprites-wan`. `agreement` measures masks without labels on them,
and `map_candidates` other maps than the probability on a word. `render_atlas` renders the picture
of all sprites, once.
"""
