"""freemask.sampling.generation: docstring to be written."""

from __future__ import annotations

import torch
from torch import Tensor

from freemask.editors.editor import Editor
from freemask.editors.scheduler import make_scheduler
from freemask.prompts import tokens as prompts
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
    """Plain guided generation from noise, the backbone as it was trained: what edits are
    measured against."""
    prompts.check_prompt(editor.tokenizer, prompt, role="target")
    scheduler = make_scheduler(editor.scheduler_config, steps)
    text = editor.encode_text(["", prompt])
    shape = (1, editor.vae.config.latent_channels, frames, *editor.latent_size(size))
    generator = torch.Generator().manual_seed(seed)

    def run(current: Tensor, start: int, end: int) -> Tensor:
        for step in range(start, end):
            timestep = int(scheduler.timesteps[step])
            batch = torch.cat([current, current])
            unconditional, conditional = editor.predict(batch, timestep, text).float().chunk(2)
            guided = unconditional + guidance * (conditional - unconditional)
            current = scheduler.step(guided, timestep, current).prev_sample
            if progress:
                progress("generate", step + 1, steps)
        return current

    noise = torch.randn(shape, generator=generator).to(editor.device)
    start, current = editor.begin(noise, run, scheduler, generator)
    current = run(current, start, steps)
    return editor.decode(current, fps)
