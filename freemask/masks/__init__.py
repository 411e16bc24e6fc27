"""Makes the mask `M*`, 1 where to edit, from the word maps of an inversion.

Word maps, mask settings and a codebook come in; `Masks` in pixels go out, which attention and
latents are gated by. Read `codebook` first: the costs of all maps (MMC). `policies` chooses cells,
each one site at one step; `selection` gives it the candidates and adds threshold and pooling.
`build` turns the maps of the chosen cells into the mask, in the order resize and average (`heat`),
or find what they agree on (`consensus`), align with the edges of the frames (`guided_filter`) and
binarise. `morphology` widens a mask by the edit's margin and fades it out in pixels.
"""
