"""freemask.sampling.inversion: docstring to be written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from diffusers import DDIMScheduler

from freemask.attention.features import FeatureStore
from freemask.attention.fusion import Fusion
from freemask.attention.word_maps import Maps, WordMapRecorder, WordQuery
from freemask.editors.editor import Editor
from freemask.editors.scheduler import make_scheduler
from freemask.masks import build as mask_making
from freemask.prepare import PreparedEdit
from freemask.prompts import tokens as prompts
from freemask.prompts.tokens import word_weights
from freemask.sampling.ddim import InversionStep, ddim_invert
from freemask.types import Inversion, Progress, Site, Trajectory, Video


def invert(
    editor: Editor,
    video: Video,
    prompt: str,
    *,
    words: str | Mapping[str, tuple[str, str]] = "",
    steps: int = 50,
    progress: Progress | None = None,
) -> Inversion:
    """Invert a clip under a prompt and read word maps on the way.

    words: a word of the prompt (its role is then "source"), or role -> (prompt, word), where the
        word may belong to another prompt. Word maps are `(T, F, h_l, w_l)` per cross site.
    Raises as `edit` does.
    """
    prompts.check_prompt(editor.tokenizer, prompt, role="source")
    scheduler = make_scheduler(editor.scheduler_config, steps)
    by_role = {"source": (prompt, words)} if isinstance(words, str) else words
    queries = {
        role: WordQuery(
            word_weights(editor.tokenizer, text, word),
            None if text == prompt else editor.encode_text([text]),
        )
        for role, (text, word) in by_role.items()
        if word
    }
    sites = editor.sites(editor.latent_size(video.size))
    capture = WordMapRecorder(queries, video.num_frames)
    return _invert(editor, video, prompt, sites, scheduler, capture, progress=progress)


class InversionCheckpoint(Protocol):
    """Where an inversion writes down how far it is, so that it can go on after an interruption."""

    def earlier(self) -> list[tuple[InversionStep, Maps]]:
        """What was kept of an earlier attempt, entry by entry."""

    def keep(self, entry: int, look: InversionStep, maps: Maps) -> None:
        """Keep an entry."""


def invert_for(
    editor: Editor,
    video: Video,
    plan: PreparedEdit,
    *,
    queries: Mapping[str, WordQuery] | None = None,
    checkpoint: InversionCheckpoint | None = None,
    progress: Progress | None = None,
) -> Inversion:
    """The inversion that an edit needs: its word maps, and its features if they are stored.

    queries: what to look for, by role, instead of the plan's own words. checkpoint: where to keep how
    far it is.
    """
    settings = plan.settings
    store = _feature_store(plan) if settings.features == "store" else None
    wanted = plan.queries if queries is None else queries
    capture = WordMapRecorder(wanted, video.num_frames, store=store, backend=settings.backend)
    return _invert(
        editor,
        video,
        plan.request.source,
        plan.sites,
        plan.scheduler,
        capture,
        checkpoint=checkpoint,
        progress=progress,
    )


def _invert(
    editor: Editor,
    video: Video,
    prompt: str,
    sites: tuple[Site, ...],
    scheduler: DDIMScheduler,
    capture: WordMapRecorder,
    *,
    checkpoint: InversionCheckpoint | None = None,
    progress: Progress | None = None,
) -> Inversion:
    """Invert a clip with whatever `capture` reads on the way."""
    latents, text = editor.encode(video), editor.encode_text([prompt])
    done = checkpoint.earlier() if checkpoint else []
    for _, maps in done:
        capture.restore(maps)

    def after_look(entry: int, look: InversionStep) -> None:
        if checkpoint:
            checkpoint.keep(entry, look, capture.latest())

    with editor.hooked(sites, capture):
        trajectory = ddim_invert(
            lambda z, t: editor.predict(z, t, text),
            latents.to(editor.device),
            scheduler,
            progress=progress,
            before_look=capture.at,
            earlier=[look for look, _ in done],
            after_look=after_look,
        )
    if capture.store is not None:
        capture.store.flush()
    return Inversion(trajectory, capture.word_maps(trajectory.timesteps), prompt, capture.store)


@torch.no_grad()
def read_again(
    editor: Editor,
    trajectory: Trajectory,
    prompt: str,
    sites: tuple[Site, ...],
    capture: WordMapRecorder,
    *,
    progress: Progress | None = None,
) -> None:
    """Show the backbone a trajectory made before, for what `capture` did not read then."""
    text = editor.encode_text([prompt])
    with editor.hooked(sites, capture):
        for entry, timestep in enumerate(trajectory.timesteps):
            capture.at(entry)
            editor.predict(trajectory.latents[entry + 1][None].to(editor.device), timestep, text)
            if progress:
                progress("read", entry + 1, trajectory.steps)


def _feature_store(plan: PreparedEdit) -> FeatureStore:
    """A store of just the queries and keys that the open windows will ask for."""
    fusion = Fusion(
        plan.settings.fusion, plan.request.steps, mask_making.whole_frame(1, (1, 1)), plan.tokens
    )
    steps = plan.request.steps
    folder = plan.settings.store_folder
    return FeatureStore(
        lambda site, entry: (
            entry < steps - plan.first_step and fusion.takes(site, steps - 1 - entry)
        ),
        Path(folder) if folder else None,
    )
