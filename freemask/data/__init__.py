"""Provides clips, most with true masks, for calibration, evaluation and the demo.

A number of clips, a folder or a table goes in; `ClipSource`s come out, which load a `CaptionedClip`
each: video, prompt, word, and the mask of the word's object. Read `clips` (the types, and the drawn
clips as a data set), `captions` (what the clips of a folder show, with `object_prompt`: where an
object is), `davis` (clips with annotations in DAVIS layout), `labels` (which of their masks a model
made, and whether they were accepted), `captioned` (folders of clips without masks), `sprites`
(scenes of the demo domain, with exact masks and counterfactuals) and `sprites_drawing` (how
objects, grounds and styles are drawn). Two files read the edits of public benchmarks: `five`
(FiVE-Bench) and `edit_list` (tables of videos, prompts and masks).
"""
