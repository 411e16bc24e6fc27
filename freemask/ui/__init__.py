"""Serves a page on which a visitor edits clips and chooses masks (`freemask ui`, Gradio).

A `UiRequest` goes in; results come out in the visitor's folder. Read `workplace` first: what the
page does, one piece of work at a time, without any of its looks. `request` holds the options,
`work_folder` the files, `form` what a visitor has filled in. `overlay` draws a mask over a clip,
`mask_sheet` the word maps of a look, and `brush` changes a mask by strokes. `app`
builds the page of `edit_tab`, `masks_tab` and `runs_tab`, from `parts`.
"""
