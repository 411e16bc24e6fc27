"""The loops that run the backbone: inversion, denoising, generation.

The room takes an editor and a prepared edit, and gives trajectories, word maps and clean latents.
Read `ddim` (the inversion's mathematics), `inversion` (a clip with its word maps), `denoising` (the
edit's loop), `context_windows` (long clips), `generation` (plain generation, the baseline of cost),
then `trace` (word maps of any run, for looking at them).
"""
