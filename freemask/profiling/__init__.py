"""Measures what an edit costs before and while it runs.

An editor, a clip's size and a number of steps go in; tables of memory and time come out, and a
trace for Perfetto. Read `live_memory` (counts tensors on the meta device), `footprint` (the memory
of one edit from configs alone), `edit_cost` (its passes and FLOP), `memory_check` (refuses an edit
that does not fit, and finds what does), `checkpoint_report` (which editors load a checkpoint, with
what sites and memory), `time_shares` (time by stage and kind of work), `site_costs` (every fused
site under every backend), `row_costs` (edits of the tokens inside a mask), `request` (the edit to
profile) and `profile` (measures the memory of a whole edit, with the tables of those before).
`doctor` examines the machine instead.
"""
