"""Edits many clips, so that nothing is done twice and one bad clip never ends a run.

A job list goes in; a folder with a result or an error for every job comes out, with a report. Read
`jobs` first, then `job_list`, whose file `io.entries` reads and whose text `io.values` parses.
`source_size` puts an edit back into the frames that it was scaled from. `run_folder` keeps the
outcomes and knows which jobs are finished; `report` renders them as HTML. `inversion_cache` shares
inversions between edits of one clip; `inversion_file` is its format and `inversion_checkpoint`
continues an interrupted inversion. `out_of_memory` repeats an edit with less memory; `failure` says
why an edit failed. `single_edit` runs one edit outside a list; `freemask.modules` runs jobs with
Lightning.
"""
