"""Compares editing methods: a benchmark request goes in, tables and a page of all clips come out.

Read `samples` first: clips with an edit to make, and the ground truth where it can be drawn.
`public_samples` makes those of FiVE-Bench and of tables, and `sample_sets` lists all sources of
samples. `methods` names the methods, and `benchmark` runs all of them on one sample.

`edited_sample` holds what a metric may read, `metric` is a metric with its column, `scores` lists
our metrics, and `metrics` computes them on arrays. `five_scores` and `five_metrics` do the same for
FiVE-Bench under its own definitions. `models` loads what they measure with: `clip` embeds frames
and prompts, `lpips` computes a learned distance with one of `lpips_networks`, `dino` compares
structures, and `niqe` judges pictures. `optical_flow` estimates motion, and `template_matching`
recognises sprites.

`request` describes a run, and `evaluate` checks it, runs its samples and writes its files, with
`tables` and `report`. `result_folder` writes edits where FiVE-Bench looks for them, and `hooks`
runs other programs that measure them. `demo` edits and scores one clip. `modules.evaluation` runs
samples on several devices.
"""
