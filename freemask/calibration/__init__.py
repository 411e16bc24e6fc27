"""Measures how good every word map is, once per checkpoint, and shows what was measured.

An editor and clips come in; a `Codebook` goes out, with its figure. Read `mmc` first: the
Mask Matching Cost and its sums over clips. `calibrate` inverts clips one after another and measures
them, against true masks or, for clips without one, against what the maps agree on
(`consensus_label`). `request` names the clips and the files of a calibration. `figures` draws
codebooks and word maps. `look` keeps the word maps of one clip, whose mask is remade
without the backbone, and `inspect` writes them, for `freemask masks`.
"""
