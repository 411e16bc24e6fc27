"""Checks a request against an editor and a clip, and derives everything that follows from it.

Whatever can be wrong with an edit is found here, before the backbone runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from diffusers import DDIMScheduler
from torch import Tensor

from freemask.attention.fusion import needs_mask
from freemask.attention.word_maps import WordQuery
from freemask.config import merge
from freemask.editors.editor import Editor
from freemask.kernels import TokenEdit
from freemask.masks.build import user_masks
from freemask.masks.policies import mask_policy
from freemask.masks.selection import Selection, codebook_for, select
from freemask.prompts.prompt_pair import PromptPair, prompt_pair
from freemask.settings import Settings, load_settings
from freemask.types import EditRequest, InputError, Inversion, Masks, Site, Video


@dataclass(frozen=True, eq=False)
class PreparedEdit:
    """A request that fits an editor and a clip, with all that follows from it.

    request: the request, with the words that were guessed.
    settings: the settings of its task and method, with overrides.
    scheduler: the sampler, set to the request's steps.
    sites: the backbone's attention sites at the clip's size.
    token_edit: how the target's tokens take the source's cross-attention.
    text: hidden states `(1, N, E)` of each branch: "source", "edit", "unconditional".
    queries: the words whose maps are wanted, by role.
    selection: the cells that make the mask; None if the edit uses no map.
    user_mask: the mask that the user gave, if any.
    """

    request: EditRequest
    settings: Settings
    scheduler: DDIMScheduler
    sites: tuple[Site, ...]
    token_edit: TokenEdit
    text: Mapping[str, Tensor]
    queries: Mapping[str, WordQuery]
    selection: Selection | None
    user_mask: Masks | None

    @property
    def first_step(self) -> int:
        """The step at which the edit leaves the source."""
        return self.settings.first_step(self.request.steps)


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
    settings = _resolve_settings(request, settings)
    mask_policy(settings.mask.policy)  # an unknown one is an error, needed or not
    scheduler = editor.scheduler(request.steps)
    sites = editor.sites(editor.latent_size(video.size))
    masked = needs_mask(settings)
    if mask is not None and not masked:
        raise InputError(
            f"a mask has no effect under task {request.task!r} with these settings: no kind "
            "in fusion.masked has an open window; open one, or give no mask"
        )
    user_mask = None if mask is None else user_masks(mask, video.num_frames, video.size)
    from_maps = masked and mask is None
    pair = prompt_pair(
        editor.tokenizer,
        request,
        settings.fusion,
        needs_words=from_maps or settings.fusion.word_weight != 1,
    )
    unconditional = request.source if settings.negative_source else ""
    text = {
        "source": editor.encode_text([request.source]),
        "edit": editor.encode_text([request.target]),
        "unconditional": editor.encode_text([unconditional]),
    }
    selection = None
    if from_maps:
        timesteps = scheduler.timesteps.flip(0).tolist()
        selection = select(codebook_for(editor, settings), settings.mask, sites, timesteps)
    return PreparedEdit(
        request=replace(request, words=pair.words),
        settings=settings,
        scheduler=scheduler,
        sites=sites,
        token_edit=pair.token_edit,
        text=text,
        queries=_word_queries(pair, settings, text) if from_maps else {},
        selection=selection,
        user_mask=user_mask,
    )


def _resolve_settings(request: EditRequest, settings: Settings | None) -> Settings:
    if settings is None:
        return load_settings(request.task, request.overrides, method=request.method)
    return merge(Settings, settings, request.overrides)


def _word_queries(
    pair: PromptPair, settings: Settings, text: Mapping[str, Tensor]
) -> dict[str, WordQuery]:
    queries = {"source": WordQuery(pair.weights["source"])}
    if settings.mask.words != "source":
        queries["target"] = WordQuery(pair.weights["target"], text["edit"])
    return queries


def check_inversion(inversion: Inversion, prepared: PreparedEdit, *, windows: int = 1) -> None:
    """Raises `InputError` for an inversion that lacks what this edit reads from it.

    windows: number of context windows of the clip; a given inversion serves one.
    """
    timesteps = prepared.scheduler.timesteps.flip(0).tolist()
    lacks = {
        "prompt": inversion.prompt != prepared.request.source,
        "steps": list(inversion.trajectory.timesteps) != timesteps,
        "word maps": not set(prepared.queries) <= set(inversion.word_maps),
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
