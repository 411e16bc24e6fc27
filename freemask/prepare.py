"""Checks a request against an editor and a clip, and derives everything that follows from it.

Whatever can be wrong with an edit is found here, before the backbone runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from freemask.attention.fusion import needs_mask, steps_reading_source
from freemask.attention.word_maps import WordQuery
from freemask.editors.editor import Editor
from freemask.editors.registry import editor_class
from freemask.editors.request import EditorRequest
from freemask.kernels import TokenEdit
from freemask.kernels.backends import find_backend
from freemask.masks.build import user_masks
from freemask.masks.policies import mask_policy
from freemask.masks.selection import (
    Selection,
    check_source,
    codebook_for,
    read_codebook,
    select,
)
from freemask.prompts.prompt_pair import PromptPair, Region, prompt_pair
from freemask.resolve import for_editor, resolve, without_effect
from freemask.settings.sections import AUTO, Settings
from freemask.types import EditRequest, InputError, Inversion, Masks, Site, Video


@dataclass(frozen=True, eq=False)
class PreparedEdit:
    """A request that fits an editor and a clip, with all that follows from it.

    request: the request, with the words that were guessed.
    settings: the settings of its task and method, with overrides.
    scheduler: the editor's scheduler, set to the request's steps.
    sites: the backbone's attention sites at the clip's size.
    token_edit: how the target's tokens take the source's cross-attention.
    text: hidden states `(1, N, E)` of each branch: "source", "edit", "unconditional".
    queries: the words whose maps are wanted of the source, by role.
    selection: the cells that make the mask; None if the edit uses no map of the source.
    regions: the parts of the mask, if it is made of word maps: what the source shows first.
    part_words: for each region, 1 on the tokens of its new word in the target, `(Nt,)`.
    look_ahead: the words whose maps are wanted of a look-ahead of the edit, by role.
    user_mask: the mask that the user gave, if any.
    latent_frames: numbers of the latent frames within a long clip, if this is a window of one.
    notes: remarks on the edit for the user, a line each.
    """

    request: EditRequest
    settings: Settings
    scheduler: Any
    sites: tuple[Site, ...]
    token_edit: TokenEdit
    text: Mapping[str, Tensor]
    queries: Mapping[str, WordQuery]
    selection: Selection | None
    user_mask: Masks | None
    regions: tuple[Region, ...] = ()
    part_words: tuple[Tensor, ...] = ()
    look_ahead: Mapping[str, WordQuery] = field(default_factory=dict)
    latent_frames: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def first_step(self) -> int:
        """The step at which the edit leaves the source."""
        return self.settings.first_step(self.request.steps)

    @property
    def regions_ahead(self) -> tuple[Region, ...]:
        """The parts of the mask that a look-ahead shows."""
        return tuple(region for region in self.regions if region.words == "target")

    @property
    def regions_behind(self) -> tuple[Region, ...]:
        """The parts of the mask that the source shows."""
        return tuple(region for region in self.regions if region.words != "target")

    @property
    def look_ahead_steps(self) -> range:
        """The steps of the look-ahead; none if every part of the mask is in the source."""
        return self.settings.look_ahead_steps(self.request.steps) if self.look_ahead else range(0)

    @property
    def timesteps(self) -> tuple[float, ...]:
        """The T timesteps of the run, ascending."""
        return tuple(self.scheduler.timesteps.flip(0).tolist())

    @property
    def entries(self) -> tuple[int, ...]:
        """Entries of the trajectory at which the edit reads word maps or stored features."""
        wanted = set(self.selection.entries if self.selection else ())
        if self.settings.features == "store":
            steps = self.request.steps
            for site in self.sites:
                read = steps_reading_source(site, self.settings, steps)
                wanted |= {steps - 1 - step for step in read}
        return tuple(sorted(wanted))


def prepare(
    editor: Editor,
    video: Video,
    request: EditRequest,
    *,
    mask: Tensor | None = None,
    settings: Settings | None = None,
) -> PreparedEdit:
    """Checks everything about an edit that can be checked before the backbone runs.

    mask: `(F, H, W)` in [0, 1], 1 = edit, instead of the one from word maps.
    settings: settings instead of the preset of the request's task and method; the request's
        overrides apply to them too.

    Raises `InputError` for prompts, words, settings or sizes that do not fit.
    """
    request, settings, notes = resolve(
        request,
        settings,
        codebook=editor.codebook,
        needs_maps=mask is None,
        family=editor.family,
        name=f"--editor {editor.name} --checkpoint {editor.checkpoint}",
    )
    settings = for_editor(settings, editor)
    mask_policy(settings.mask.policy)  # an unknown one is an error, needed or not
    _check_backend(settings.backend)
    scheduler = editor.scheduler(request.steps)
    sites = editor.sites(editor.latent_size(video.size))
    masked = needs_mask(settings)
    if mask is not None:
        _check_effect(masked, request.task)
    user_mask = None if mask is None else user_masks(mask, video.num_frames, video.size)
    from_maps = masked and mask is None
    pair = prompt_pair(
        editor.tokenizer,
        request,
        settings.fusion,
        needs_words=from_maps or settings.fusion.word_weight != 1,
        mask_words=settings.mask.words,
    )
    text = _text_states(editor, request, settings)
    queries, ahead = _word_queries(pair, text) if from_maps else ({}, {})
    regions = sorted(pair.regions, key=lambda r: r.words == "target") if from_maps else []
    return PreparedEdit(
        request=replace(request, words=pair.words),
        settings=settings,
        scheduler=scheduler,
        sites=sites,
        token_edit=pair.token_edit,
        text=text,
        queries=queries,
        selection=_select(editor, settings, sites, scheduler) if queries else None,
        user_mask=user_mask,
        regions=tuple(regions),
        part_words=tuple(pair.weights[region.role("target")] for region in regions),
        look_ahead=ahead,
        notes=(*notes, *without_effect(editor, sites, request.overrides)),
    )


def preflight(
    wanted: EditorRequest, request: EditRequest, size: tuple[int, int], *, masked: bool = False
) -> tuple[str, ...]:
    """Checks an edit against a checkpoint before weights are read; returns remarks on the edit.

    wanted: the editor and its checkpoint.
    size: of the frames, `(H, W)` pixels.
    masked: whether the user gives a mask, or a model that makes it.

    Raises `InputError` as `freemask.editors.preflight` and `prepare` do.
    """
    files = wanted.preflight(request, size)
    request, settings, notes = resolve(
        request,
        None,
        codebook=files.codebook,
        needs_maps=not masked,
        family=editor_class(wanted.editor).family,
        name=f"--editor {wanted.editor} --checkpoint {wanted.checkpoint}",
    )
    for_editor(settings, editor_class(wanted.editor))
    mask_policy(settings.mask.policy)
    if masked:
        _check_effect(needs_mask(settings), request.task)
    if masked or not needs_mask(settings) or settings.mask.words == "target":
        return notes
    codebook = read_codebook(files.codebook, settings)
    check_source(settings.mask, has_codebook=codebook is not None)
    if codebook and settings.mask.sites != "released":
        blueprint = editor_class(wanted.editor).blueprint(files.folder, files.dtype)
        codebook.check(blueprint.sites(blueprint.latent_size(size)))
    return notes


def _check_backend(name: str) -> None:
    """Raises `InputError` for a backend of another package that cannot be loaded."""
    try:
        if name != AUTO:
            find_backend(name)
    except RuntimeError as error:
        raise InputError(str(error)) from error


def _check_effect(needed: bool, task: str) -> None:
    """Raises `InputError` for a mask that an edit does not need."""
    if not needed:
        raise InputError(
            f"a mask has no effect under task {task!r} with these settings: no kind in "
            "fusion.masked has an open window; open one, or give no mask"
        )


def _select(editor: Editor, settings: Settings, sites: Sequence[Site], scheduler: Any) -> Selection:
    return select(
        codebook_for(editor, settings),
        settings.mask,
        sites,
        scheduler.timesteps.flip(0).tolist(),
        released=editor.released_sites(sites),
    )


def _text_states(editor: Editor, request: EditRequest, settings: Settings) -> dict[str, Tensor]:
    unconditional = request.source if settings.negative_source else ""
    prompts = {"source": request.source, "edit": request.target, "unconditional": unconditional}
    return {branch: editor.encode_text([prompt]) for branch, prompt in prompts.items()}


def _word_queries(
    pair: PromptPair, text: Mapping[str, Tensor]
) -> tuple[dict[str, WordQuery], dict[str, WordQuery]]:
    """Returns the words whose maps an inversion records, and those of a look-ahead, by role."""
    queries, ahead = {}, {}
    for region in pair.regions:
        target = region.role("target")
        if region.words == "target":
            ahead[target] = WordQuery(pair.weights[target])
            continue
        for role in region.roles:
            other = text["edit"] if role == target else None
            queries[role] = WordQuery(pair.weights[role], other)
    return queries, ahead


def _has_maps(inversion: Inversion, role: str, prepared: PreparedEdit) -> bool:
    """Returns whether an inversion has the maps of a role at the cells that make the mask, if its
    steps are those of the edit."""
    maps, selection = inversion.word_maps.get(role), prepared.selection
    if maps is None or selection is None:
        return maps is not None
    if inversion.trajectory.timesteps != prepared.timesteps:
        return True
    return {prepared.timesteps[entry] for entry in selection.entries} <= set(maps.timesteps)


def check_inversion(inversion: Inversion, prepared: PreparedEdit, *, windows: int = 1) -> None:
    """Raises `InputError` for an inversion that lacks what this edit reads from it.

    windows: number of context windows of the clip; a given inversion serves one.
    """
    lacks = {
        "prompt": inversion.prompt != prepared.request.source,
        "steps": inversion.trajectory.timesteps != prepared.timesteps,
        "word maps": not all(_has_maps(inversion, role, prepared) for role in prepared.queries),
        "stored features": prepared.settings.features == "store" and inversion.features is None,
    }
    if any(lacks.values()):
        wrong = ", ".join(name for name, lacking in lacks.items() if lacking)
        raise InputError(f"the inversion is of another edit: its {wrong} differ; invert again")
    if windows > 1:
        raise InputError(
            f"an inversion serves one window, and the clip makes {windows}; give none, or let "
            "window.frames hold the clip"
        )
