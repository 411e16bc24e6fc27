"""A request checked against an editor and a clip, with all that follows from it.

What can be wrong with an edit is found here, before the backbone runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from freemask import masks as mask_making
from freemask import mmc, prompts
from freemask.capture import Probe
from freemask.config import Settings, load_settings
from freemask.editors.editor import Editor
from freemask.inversion import make_scheduler
from freemask.kernels import TokenEdit
from freemask.selection import select
from freemask.types import EditRequest, InputError, Inversion, Masks, Site, Video


@dataclass(frozen=True, eq=False)
class Plan:
    """A request that was checked against an editor and a clip, with all that follows from it.

    tokens: how target tokens follow source tokens. text: hidden states of P0, P1 and the
    unconditional prompt. probes: the words to look for. selection: the cells that make the mask,
    or None where the request or the user needs no map.
    """

    request: EditRequest
    settings: Settings
    scheduler: DDIMScheduler
    sites: tuple[Site, ...]
    tokens: TokenEdit
    text: Mapping[str, Tensor]
    probes: Mapping[str, Probe]
    selection: mask_making.Selection | None
    user_mask: Masks | None

    @property
    def first_step(self) -> int:
        """The step at which the edit leaves the source."""
        return self.settings.first_step(self.request.steps)


def prepare(editor: Editor, video: Video, request: EditRequest, mask: Tensor | None = None) -> Plan:
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
    return Plan(
        request=request,
        settings=settings,
        scheduler=scheduler,
        sites=sites,
        tokens=token_edit(tokenizer, request, settings),
        text=text,
        probes=_probes(tokenizer, request, settings, text) if masked else {},
        selection=_selection(editor, settings, sites, scheduler) if masked else None,
        user_mask=user_mask,
    )


def codebook_for(editor: Editor, settings: Settings) -> mmc.Codebook | None:
    """The codebook that the settings name, or else the one that the checkpoint came with."""
    path = settings.codebook or editor.codebook
    return mmc.Codebook.load(path) if path else None


def needs_mask(settings: Settings) -> bool:
    """Whether anything that M* gates is open at any time."""
    fusion = settings.fusion
    windows = {
        "self": [fusion.self_replace],
        "temporal": [fusion.temporal_replace],
        "latents": [fusion.latent_blend],
        "cross": list(_cross_windows(fusion.cross_replace).values()),
    }
    begin = 1 - settings.strength
    return fusion.pixel_blend or any(
        end > max(start, begin) for kind in fusion.masked for start, end in windows[kind]
    )


def token_edit(tokenizer: object, request: EditRequest, settings: Settings) -> TokenEdit:
    """How the target's tokens take the source's attention, when, and how strongly."""
    fusion = settings.fusion
    alignment = prompts.align(
        tokenizer,
        request.source,
        request.target,
        kind=fusion.alignment,  # type: ignore[arg-type]
    )
    factors = dict(fusion.reweight)
    if fusion.word_weight != 1 and request.words:
        factors[request.words[1]] = fusion.word_weight
    windows = _cross_windows(fusion.cross_replace)
    return (
        TokenEdit.replacement(alignment.mapper)
        .reweighted(prompts.token_weights(tokenizer, request.target, factors))  # type: ignore[arg-type]
        .windowed(prompts.token_windows(tokenizer, request.target, windows))  # type: ignore[arg-type]
    )


def check_inversion(inversion: Inversion, plan: Plan) -> None:
    """Raises `InputError` for an inversion made before that lacks what this edit reads from it."""
    lacks = {
        "prompt": inversion.prompt != plan.request.source,
        "steps": list(inversion.trajectory.timesteps) != plan.scheduler.timesteps.flip(0).tolist(),
        "word maps": not set(plan.probes) <= set(inversion.word_maps),
        "stored features": plan.settings.features == "store" and inversion.features is None,
    }
    if any(lacks.values()):
        wrong = ", ".join(name for name, lacking in lacks.items() if lacking)
        raise InputError(f"the inversion is of another edit: its {wrong} differ; make it anew")


def word_weights(tokenizer: object, prompt: str, word: str, role: str = "source") -> Tensor:
    """`(N,)`: 1 on the tokens of a word of the prompt, 0 elsewhere."""
    weights = torch.zeros(tokenizer.model_max_length)  # type: ignore[attr-defined]
    weights[list(prompts.word_tokens(tokenizer, prompt, word, role=role))] = 1  # type: ignore[arg-type]
    return weights


def _guess_words(request: EditRequest) -> tuple[str, str]:
    return prompts.changed_words(request.source, request.target)


def _cross_windows(windows: object) -> dict[str, list[float]]:
    per_word: dict[str, Any] = windows if isinstance(windows, dict) else {"default": windows}
    return {word: [0.0, w] if isinstance(w, int | float) else w for word, w in per_word.items()}


def _probes(
    tokenizer: object, request: EditRequest, settings: Settings, text: Mapping[str, Tensor]
) -> dict[str, Probe]:
    p0, p1 = request.words  # type: ignore[misc]
    probes = {"source": Probe(word_weights(tokenizer, request.source, p0, "source"))}
    weights = word_weights(tokenizer, request.target, p1, "target")
    if settings.mask.words != "source":
        probes["target"] = Probe(weights, text["edit"])
    return probes


def _selection(
    editor: Editor, settings: Settings, sites: tuple[Site, ...], scheduler: DDIMScheduler
) -> mask_making.Selection:
    timesteps = scheduler.timesteps.flip(0).tolist()
    return select(codebook_for(editor, settings), settings.mask, sites, timesteps)
