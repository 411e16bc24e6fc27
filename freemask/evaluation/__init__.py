"""Compares editing methods: a benchmark request goes in, tables and a page of all clips come out.

Read `samples` first: clips with an edit to make, and the ground truth where it can be drawn.
`methods` names the methods, and `benchmark` runs all of them on one sample. `edited_sample` holds
what a metric may read, `scores` lists the metrics, and `metrics` computes them on arrays. Four
files measure for them: `clip` embeds frames and prompts, `lpips` computes a learned distance,
`optical_flow` estimates motion, and `template_matching` recognises sprites. `request` describes a
run, and `evaluate` checks it, runs its samples and writes its files, with `tables` and `report`.
`demo` edits and scores one clip. `modules.evaluation` runs samples on several devices.
"""
