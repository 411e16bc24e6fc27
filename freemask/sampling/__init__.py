"""The loops that run the backbone: inversion, denoising, generation.

The room takes an editor and a prepared edit, and gives trajectories, word maps and clean latents.
Read `sampler` (the interface of a noise process), `ddim` and `flow` (the two that fill it, with
their mathematics), `extrapolation` (how both invert) and `samplers` (which one a scheduler means);
then `inversion` (a clip at every noise level, with its word maps), `edit_state` (what an edit
denoises), `look_ahead` (where an edit puts new words), `guidance` (the branches of a step), `cost`
(how many there will be) and `denoising` (the edit's loop); `context_windows` (long clips),
`generation` (plain generation, the baseline of cost), and `trace` (word maps of any run, for
looking at them).
"""
