"""Looks ahead: takes the first steps of an edit without a mask, to see where its new words go.

A word that only the target prompt has is nowhere in the source. The edit itself decides on its
place in its first steps, and the word's maps in these show it. The edit then goes on from there,
with the source put back outside the mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freemask.attention.word_maps import WordMapRecorder
from freemask.editors.editor import Editor
from freemask.masks.build import make_masks
from freemask.masks.selection import look_ahead_selection
from freemask.prepare import PreparedEdit
from freemask.sampling.edit_state import Pinned
from freemask.sampling.guidance import branch_plan
from freemask.sampling.inversion import spread_of
from freemask.sampling.sampler import check_finite
from freemask.sampling.samplers import sampler_of
from freemask.types import Inversion, Masks, Progress, Trajectory, Video

READ = 3  # of the look-ahead's last steps, whose maps are read


@torch.no_grad()
def look_ahead(
    editor: Editor,
    video: Video,
    prepared: PreparedEdit,
    inversion: Inversion,
    *,
    progress: Progress | None = None,
) -> tuple[Masks, Tensor]:
    """Returns the masks of the regions whose words only the edit shows, and its latents
    `(1, C, F, h, w)` after the look-ahead.

    Raises `FloatingPointError` if latents stop being finite; it names the step.
    """
    request, settings = prepared.request, prepared.settings
    sampler, steps = sampler_of(prepared), prepared.look_ahead_steps
    source = inversion.trajectory
    trajectory = Trajectory(source.latents.to(editor.device), source.timesteps)
    state = Pinned(sampler, trajectory, prepared.first_step)
    recorder = WordMapRecorder(
        prepared.look_ahead,
        spread=spread_of(editor, video),
        backend=settings.backend,
        ranks=editor.ranks,
    )
    plan = branch_plan(settings, request)
    generator = torch.Generator().manual_seed(request.seed)
    with editor.hooked(prepared.sites, recorder):
        for done, step in enumerate(steps, start=1):
            timestep = sampler.timesteps[step]
            recorder.at(request.steps - 1 - step if step in steps[-READ:] else None)
            guided = editor.predict(state.latents, timestep, prepared.text["edit"]).float()
            if plan.guides(step):
                recorder.at(None)
                text = prepared.text["unconditional"]
                without = editor.predict(state.latents, timestep, text).float()
                guided = without + request.guidance * (guided - without)
            state.advance(step, guided, None, generator)
            check_finite(state.latents, f"look-ahead step {done} of {len(steps)}")
            if progress:
                progress("look ahead", done, len(steps))
    selection = look_ahead_selection(prepared.sites, prepared.timesteps, recorder.entries)
    maps = recorder.word_maps(prepared.timesteps)
    masks = make_masks(maps, selection, settings.mask, video, prepared.regions_ahead)
    return masks, state.latents
