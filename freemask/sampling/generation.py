"""Generates a clip from noise with plain guidance: the baseline of every edit's cost."""

from __future__ import annotations

import torch
from torch import Tensor

from freemask.editors.editor import Editor
from freemask.prompts.tokens import check_prompt
from freemask.resolve import for_editor
from freemask.sampling.samplers import make_sampler
from freemask.settings.sections import Settings
from freemask.types import Progress, Video


@torch.no_grad()
def generate(
    editor: Editor,
    prompt: str,
    *,
    frames: int = 8,
    size: tuple[int, int] = (64, 64),
    steps: int = 50,
    guidance: float = 7.5,
    seed: int = 0,
    fps: float = 8.0,
    progress: Progress | None = None,
) -> Video:
    """Returns a clip that the backbone generates from a prompt.

    frames: number of frames F.
    size: `(H, W)` in pixels, multiples of the VAE's factor.
    guidance: scale of classifier-free guidance.
    seed: seed of the noise.
    progress: called with the stage, the steps done and the steps in all.

    Raises `InputError` for a prompt, a size or steps that do not fit.
    """
    check_prompt(editor.tokenizer, prompt, role="target")
    scheduler = editor.scheduler(steps)
    sampler = make_sampler(scheduler, for_editor(Settings(), editor))
    text = editor.encode_text(["", prompt])
    generator = torch.Generator().manual_seed(seed)

    def run(current: Tensor, start: int, end: int) -> Tensor:
        for step in range(start, end):
            timestep = sampler.timesteps[step]
            batch = torch.cat([current, current])
            unconditional, conditional = editor.predict(batch, timestep, text).float().chunk(2)
            guided = unconditional + guidance * (conditional - unconditional)
            current = sampler.step(guided, step, current, generator)
            if progress:
                progress("generate", step + 1, steps)
        return current

    noise = torch.randn(editor.latent_shape(frames, size), generator=generator).to(editor.device)
    start, current = editor.begin(noise, run, scheduler, generator)
    current = run(current, start, steps)
    return editor.decode(current, fps, frames)
