"""Finds a clip at every noise level of a base editor, and records word maps and features there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch

from freemask.attention.features import FeatureStore, transfer_for
from freemask.attention.fusion import steps_reading_source
from freemask.attention.lanes import Lane
from freemask.attention.word_maps import Maps, Spread, WordMapRecorder, WordQuery
from freemask.editors.editor import Editor
from freemask.io.paths import user_path
from freemask.prepare import PreparedEdit
from freemask.prompts.tokens import check_prompt, word_weights
from freemask.resolve import for_editor
from freemask.sampling.sampler import InversionStep, Sampler, Watch
from freemask.sampling.samplers import make_sampler, sampler_of
from freemask.settings.sections import Settings
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
    """Inverts a clip under a prompt and records word maps `(T, F, h_l, w_l)` per cross site.

    words: a word of the prompt (its role is then "source"), or role -> (prompt, word), where the
        word may belong to another prompt.
    steps: number of steps T.
    progress: called with the stage, the steps done and the steps in all.

    Raises `InputError` for a prompt, a word, a size or steps that do not fit; `FloatingPointError`
    if latents stop being finite.
    """
    check_prompt(editor.tokenizer, prompt, role="source")
    scheduler = editor.scheduler(steps)
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
    recorder = WordMapRecorder(queries, spread=spread_of(editor, video), ranks=editor.ranks)
    sampler = make_sampler(scheduler, for_editor(Settings(), editor))
    entries = range(len(sampler.timesteps))
    return _invert(editor, video, prompt, sites, sampler, recorder, entries, progress=progress)


class InversionCheckpoint(Protocol):
    """Where an inversion keeps its steps, so that an interrupted one continues."""

    def earlier(self) -> list[tuple[InversionStep, Maps]]:
        """Returns the steps of an earlier attempt, in order."""

    def keep(self, entry: int, step: InversionStep, maps: Maps) -> None:
        """Stores a step and its maps."""


def invert_for(
    editor: Editor,
    video: Video,
    prepared: PreparedEdit,
    *,
    queries: Mapping[str, WordQuery] | None = None,
    entries: Iterable[int] = (),
    checkpoint: InversionCheckpoint | None = None,
    progress: Progress | None = None,
) -> Inversion:
    """Inverts a clip for an edit: with its word maps, and its features if they are stored.

    queries: the wanted words by role, instead of those of the edit.
    entries: further entries whose word maps are wanted; an inverted source has all.
    checkpoint: where to keep the steps.
    """
    settings = prepared.settings
    recorder = WordMapRecorder(
        prepared.queries if queries is None else queries,
        spread=spread_of(editor, video),
        store=_feature_store(editor, prepared) if settings.features == "store" else None,
        backend=settings.backend,
        ranks=editor.ranks,
    )
    return _invert(
        editor,
        video,
        prepared.request.source,
        prepared.sites,
        sampler_of(prepared),
        recorder,
        sorted({*prepared.entries, *entries}),
        checkpoint=checkpoint,
        progress=progress,
    )


def _invert(
    editor: Editor,
    video: Video,
    prompt: str,
    sites: tuple[Site, ...],
    sampler: Sampler,
    recorder: WordMapRecorder,
    entries: Iterable[int],
    *,
    checkpoint: InversionCheckpoint | None = None,
    progress: Progress | None = None,
) -> Inversion:
    """Finds the source at every level, and reads the wanted entries that it did not read on the
    way."""
    latents, text = editor.encode(video), editor.encode_text([prompt])
    done = checkpoint.earlier() if checkpoint else []
    for _, maps in done:
        recorder.restore(maps)

    def after_step(entry: int, step: InversionStep) -> None:
        if checkpoint:
            checkpoint.keep(entry, step, recorder.latest())

    watch = Watch(progress, recorder.at, [step for step, _ in done], after_step)
    with editor.hooked(sites, recorder):
        trajectory = sampler.trajectory(
            lambda z, t: editor.predict(z, t, text), latents.to(editor.device), watch
        )
    unread = [entry for entry in entries if entry not in recorder.entries]
    read(editor, trajectory, prompt, sites, recorder, unread, progress=progress)
    if recorder.store is not None:
        recorder.store.flush()
    return Inversion(trajectory, recorder.word_maps(trajectory.timesteps), prompt, recorder.store)


@torch.no_grad()
def read(
    editor: Editor,
    trajectory: Trajectory,
    prompt: str,
    sites: tuple[Site, ...],
    recorder: WordMapRecorder,
    entries: Sequence[int],
    *,
    progress: Progress | None = None,
) -> None:
    """Runs the backbone at entries of a known trajectory and records what `recorder` asks for."""
    text = editor.encode_text([prompt])
    with editor.hooked(sites, recorder):
        for done, entry in enumerate(entries, start=1):
            recorder.at(entry)
            latents = trajectory.latents[entry + 1][None].to(editor.device)
            timestep = trajectory.timesteps[entry]
            if editor.runs_lanes:  # which see the padding of a text as one key
                editor.predict_lanes([Lane.whole(latents, text, sites[0].resolution)], timestep)
            else:
                editor.predict(latents, timestep, text)
            if progress:
                progress("read", done, len(entries))


def spread_of(editor: Editor, video: Video) -> Spread:
    """Returns what turns maps of latent frames into maps of a clip's frames."""
    return partial(editor.latent_time.spread, frames=video.num_frames)


def _feature_store(editor: Editor, prepared: PreparedEdit) -> FeatureStore:
    """A store of just the queries and keys that the edit will read."""
    settings, steps = prepared.settings, prepared.request.steps
    read = {site: set(steps_reading_source(site, settings, steps)) for site in prepared.sites}
    return FeatureStore(
        lambda site, entry: steps - 1 - entry in read[site],
        transfer=transfer_for(editor.device),
        folder=user_path(settings.store_folder) if settings.store_folder else None,
    )
