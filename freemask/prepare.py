"""A request checked against an editor and a clip, with all that follows from it.

What can be wrong with an edit is found here, before the backbone runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from diffusers import DDIMScheduler
from torch import Tensor

from freemask.attention.word_maps import WordQuery, _probes
from freemask.editors.editor import Editor
from freemask.editors.scheduler import make_scheduler
from freemask.kernels.token_edit import TokenEdit
from freemask.masks import build as mask_making
from freemask.masks.policies import Selection, _selection
from freemask.prompts import tokens as prompts
from freemask.prompts.prompt_pair import _guess_words, token_edit
from freemask.settings import Settings, load_settings, needs_mask
from freemask.types import EditRequest, InputError, Inversion, Masks, Site, Video


@dataclass(frozen=True, eq=False)
class PreparedEdit:
    """A request that was checked against an editor and a clip, with all that follows from it.

    tokens: how target tokens follow source tokens. text: hidden states of P0, P1 and the
    unconditional prompt. queries: the words to look for. selection: the cells that make the mask,
    or None where the request or the user needs no map.
    """

    request: EditRequest
    settings: Settings
    scheduler: DDIMScheduler
    sites: tuple[Site, ...]
    tokens: TokenEdit
    text: Mapping[str, Tensor]
    queries: Mapping[str, WordQuery]
    selection: Selection | None
    user_mask: Masks | None

    @property
    def first_step(self) -> int:
        """The step at which the edit leaves the source."""
        return self.settings.first_step(self.request.steps)


def prepare(
    editor: Editor, video: Video, request: EditRequest, mask: Tensor | None = None
) -> PreparedEdit:
    """Check everything about an edit that can be checked before the backbone runs."""
    settings = load_settings(request.task, request.overrides, method=request.method)
    scheduler = make_scheduler(editor.scheduler_config, request.steps)
    sites = editor.sites(editor.latent_size(video.size))
    tokenizer = editor.tokenizer
    for role in ("source", "target"):
        prompts.check_prompt(tokenizer, getattr(request, role), role=role)
    user_mask = None
    if mask is not None:
        if not needs_mask(settings):
            raise InputError(
                f"a mask has no effect under task {request.task!r} with these settings: no kind "
                "in fusion.masked has an open window; open one, or give no mask"
            )
        user_mask = mask_making.user_masks(mask, video.num_frames, video.size)
    masked = user_mask is None and needs_mask(settings)
    if masked or settings.fusion.word_weight != 1:
        request = replace(request, words=request.words or _guess_words(request))
    text = {
        "source": editor.encode_text([request.source]),
        "edit": editor.encode_text([request.target]),
        "unconditional": editor.encode_text([request.source if settings.negative_source else ""]),
    }
    return PreparedEdit(
        request=request,
        settings=settings,
        scheduler=scheduler,
        sites=sites,
        tokens=token_edit(tokenizer, request, settings),
        text=text,
        queries=_probes(tokenizer, request, settings, text) if masked else {},
        selection=_selection(editor, settings, sites, scheduler) if masked else None,
        user_mask=user_mask,
    )


def check_inversion(inversion: Inversion, plan: PreparedEdit) -> None:
    """Raises `InputError` for an inversion made before that lacks what this edit reads from it."""
    lacks = {
        "prompt": inversion.prompt != plan.request.source,
        "steps": list(inversion.trajectory.timesteps) != plan.scheduler.timesteps.flip(0).tolist(),
        "word maps": not set(plan.queries) <= set(inversion.word_maps),
        "stored features": plan.settings.features == "store" and inversion.features is None,
    }
    if any(lacks.values()):
        wrong = ", ".join(name for name, lacking in lacks.items() if lacking)
        raise InputError(f"the inversion is of another edit: its {wrong} differ; make it anew")
