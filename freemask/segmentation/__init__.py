"""Finds the object of a clip with a segmentation model, a *teacher*, in place of word maps.

A clip and an `ObjectPrompt` (a word, a box or a point) go in; a mask of every frame comes out. Read
`teacher` first: what a teacher is, and how its weights are loaded and freed. `model_frames` makes
frames what a model reads. `sam3` finds what a word names, `sam2` follows what a box or a point
shows; `registry` tells them apart by their configs. `label_clips` labels a folder of clips and
keeps the masks beside them, `review_page` shows these to accept or reject, and `edit_mask` makes
the mask of one edit.
"""
