"""FreeMask as modular blocks of diffusers: encode, look, mask, edit, decode.

Components of a pipeline and a request go in; the edited frames and the masks come out, and between
two blocks everything that `freemask.edit` has at that point. Read `blocks` first. `components` says
which components each editor takes and makes an editor of them, and `export` writes the folder that
`ModularPipeline.from_pretrained` loads.
"""
