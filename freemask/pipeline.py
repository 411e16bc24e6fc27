"""The whole of FreeMask: invert, find the mask, denoise under fusion, decode.

    video -> latents -> invert (reading word maps) -> codebook selects -> M*
          -> denoise under fusion(M*) -> video

Source: FreeMask (arXiv 2409.20500). Words and shapes are those of `types` and `config`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor
from torch.profiler import record_function

from freemask import masks as mask_making
from freemask import prompts, windows
from freemask.capture import Capture, Maps, Probe
from freemask.config import Settings
from freemask.editors.editor import Editor
from freemask.fusion import FeatureStore, Fusion, in_window
from freemask.inversion import Look, check_finite, ddim_invert, make_scheduler
from freemask.memory import PeakMemory
from freemask.plan import Plan, check_inversion, prepare, word_weights
from freemask.result import EditResult
from freemask.spool import Spool
from freemask.types import (
    EditRequest,
    InputError,
    Inversion,
    Masks,
    Progress,
    Site,
    Trajectory,
    Video,
)


def edit(
    editor: Editor,
    video: Video,
    request: EditRequest,
    *,
    mask: Tensor | None = None,
    inversion: Inversion | Callable[[Video, Plan], Inversion] | None = None,
    progress: Progress | None = None,
) -> EditResult:
    """Edit a video from text; a clip longer than `window.frames` in windows (`windows`).

    mask: `(F, H, W)` in [0, 1], 1 = edit, instead of the one that the word maps give; the edit
        reaches `fusion.margin` beyond either.
    inversion: of this clip under this request, made before by `invert_for`, or what makes or finds
        that of a window; else it is made now.
    progress: called with the stage, the steps done and the steps in all.

    The same request on the same machine gives the same bytes.
    Raises `InputError` for prompts, words, settings or sizes that do not fit, before any long work;
    `FloatingPointError` when latents stop being finite.
    """
    plan = prepare(editor, video, request, mask)
    parts = windows.split(video.num_frames, plan.settings.window)
    if isinstance(inversion, Inversion):
        check_inversion(inversion, plan)
        if len(parts) > 1:
            raise InputError(
                f"an inversion serves one window, {video.num_frames} frames make {len(parts)}; "
                "give none, or let window.frames hold the clip"
            )
    stage = _Stages(progress, len(parts))
    joint = windows.Joint(plan.settings.window) if len(parts) > 1 else None
    edited, masked = Spool(), Spool()  # masks `(F, S, H, W)`, so that windows follow each other
    trajectory: Trajectory | None = None
    with PeakMemory(editor.device) as memory:
        for window, final in windows.own_frames(parts):
            stage.next_window()
            clip = window.clip(video)
            if joint:
                joint.enter(window)
                part = None if mask is None else window.take(mask)
                plan = prepare(editor, clip, request, part)
            result, masks, inverted = _edit_part(editor, clip, plan, inversion, joint, stage)
            edited.add(result.frames[final])
            masked.add(masks.values[:, final].cpu().transpose(0, 1).numpy())
            trajectory = None if joint else inverted.trajectory
    return EditResult(
        video=Video(edited.array(), video.fps),
        source=video,
        masks=replace(masks, values=torch.from_numpy(masked.array()).transpose(0, 1)),
        trajectory=trajectory,
        request=plan.request,
        settings=plan.settings,
        timings=stage.seconds,
        peak_memory=memory.bytes,
        editor=describe(editor),
    )


def _edit_part(
    editor: Editor,
    clip: Video,
    plan: Plan,
    inversion: Inversion | Callable[[Video, Plan], Inversion] | None,
    joint: windows.Joint | None,
    stage: _Stages,
) -> tuple[Video, Masks, Inversion]:
    """A clip or a window of one, from its frames to the edited ones."""
    with stage("inversion"):
        inverted = inversion or invert_for(editor, clip, plan, progress=stage.tell)
        if not isinstance(inverted, Inversion):
            inverted = inverted(clip, plan)
    with stage("mask"):
        masks = find_masks(clip, plan, inverted)
        masks = joint.masks(masks) if joint else masks
    with stage("denoise"):
        latents = denoise(editor, plan, inverted, masks, joint=joint, progress=stage.tell)
    with stage("decode"):
        edited = decode(editor, clip, plan, masks, latents)
    return edited, masks, inverted


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
    probes = {
        role: Probe(
            word_weights(editor.tokenizer, text, word),
            None if text == prompt else editor.encode_text([text]),
        )
        for role, (text, word) in by_role.items()
        if word
    }
    sites = editor.sites(editor.latent_size(video.size))
    capture = Capture(probes, video.num_frames)
    return _invert(editor, video, prompt, sites, scheduler, capture, progress=progress)


class Journal(Protocol):
    """Where an inversion writes down how far it is, so that it can go on after an interruption."""

    def earlier(self) -> list[tuple[Look, Maps]]:
        """What was kept of an earlier attempt, entry by entry."""

    def keep(self, entry: int, look: Look, maps: Maps) -> None:
        """Keep an entry."""


def invert_for(
    editor: Editor,
    video: Video,
    plan: Plan,
    *,
    probes: Mapping[str, Probe] | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Inversion:
    """The inversion that an edit needs: its word maps, and its features if they are stored.

    probes: what to look for, by role, instead of the plan's own words. journal: where to keep how
    far it is.
    """
    settings = plan.settings
    store = _feature_store(plan) if settings.features == "store" else None
    wanted = plan.probes if probes is None else probes
    capture = Capture(wanted, video.num_frames, store=store, backend=settings.backend)
    return _invert(
        editor,
        video,
        plan.request.source,
        plan.sites,
        plan.scheduler,
        capture,
        journal=journal,
        progress=progress,
    )


def _invert(
    editor: Editor,
    video: Video,
    prompt: str,
    sites: tuple[Site, ...],
    scheduler: DDIMScheduler,
    capture: Capture,
    *,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Inversion:
    """Invert a clip with whatever `capture` reads on the way."""
    latents, text = editor.encode(video), editor.encode_text([prompt])
    done = journal.earlier() if journal else []
    for _, maps in done:
        capture.restore(maps)

    def after_look(entry: int, look: Look) -> None:
        if journal:
            journal.keep(entry, look, capture.latest())

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
    capture: Capture,
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


def find_masks(video: Video, plan: Plan, inversion: Inversion) -> Masks:
    """`M*`: the user's, or what the selected cells show, or the whole frame where none is used."""
    if plan.user_mask is not None:
        return plan.user_mask
    if plan.selection is None:
        return mask_making.whole_frame(video.num_frames, video.size)
    return mask_making.make_masks(inversion.word_maps, plan.selection, plan.settings.mask, video)


@torch.no_grad()
def denoise(
    editor: Editor,
    plan: Plan,
    inversion: Inversion,
    masks: Masks,
    *,
    joint: windows.Joint | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """From the inverted noise back to clean latents `(1, C, F, h, w)`, fusing on the way.

    joint: brings a window of a long clip together with those before, at every step.
    """
    settings, steps = plan.settings, plan.request.steps
    trajectory = Trajectory(
        inversion.trajectory.latents.to(editor.device), inversion.trajectory.timesteps
    )
    fusion = make_fusion(editor, plan, inversion, masks)
    generator = torch.Generator().manual_seed(plan.request.seed)
    current, timesteps = trajectory.before(plan.first_step), plan.scheduler.timesteps.tolist()
    with editor.hooked(plan.sites, fusion):
        for step in range(plan.first_step, steps):
            timestep = timesteps[step]
            fusion.at(step)
            guided = predict_guided(
                editor, plan, fusion, trajectory.before(step), current, timestep
            )
            current = plan.scheduler.step(
                guided, timestep, current, eta=settings.eta, generator=generator
            ).prev_sample
            if in_window(settings.fusion.latent_blend, step, steps):
                current = _blend_latents(
                    current, trajectory.after(step), fusion.masks.at(step), settings
                )
            if joint:
                current = joint.latents(step, current)
            check_finite(current, f"denoising step {step + 1} of {steps} (t = {timestep})")
            if progress:
                progress("denoise", step + 1 - plan.first_step, steps - plan.first_step)
    return current


def make_fusion(editor: Editor, plan: Plan, inversion: Inversion, masks: Masks) -> Fusion:
    """The fusion that a plan asks for, at its first step."""
    settings = plan.settings
    return Fusion(
        settings.fusion,
        plan.request.steps,
        mask_making.widened(masks.to(editor.device), settings.fusion.margin),
        plan.tokens,
        store=inversion.features if settings.features == "store" else None,
        guided=plan.request.guidance != 1,
        backend=settings.backend,
    )


def predict_guided(
    editor: Editor, plan: Plan, fusion: Fusion, source: Tensor, current: Tensor, timestep: int
) -> Tensor:
    """The backbone's guided output for the edit, `(1, C, F, h, w)`, fused with the source's."""
    predicted: dict[str, Tensor] = {}
    for branches in fusion.passes:
        fusion.enter(branches)
        batch = torch.cat([source if branch == "source" else current for branch in branches])
        text = torch.cat([plan.text[branch] for branch in branches])
        output = editor.predict(batch, timestep, text).float()
        predicted |= zip(branches, output.split(1), strict=True)
    if not fusion.guided:
        return predicted["edit"]
    unconditional = predicted["unconditional"]
    return unconditional + plan.request.guidance * (predicted["edit"] - unconditional)


def _blend_latents(current: Tensor, source: Tensor, mask: Tensor, settings: Settings) -> Tensor:
    """`M z + (1 - M) z_source`; both have the noise level that the step has reached."""
    if "latents" not in settings.fusion.masked:
        return source
    weight = F.interpolate(mask[None, None], size=(len(mask), *current.shape[-2:]), mode="area")
    return torch.lerp(source, current, weight)


def decode(editor: Editor, video: Video, plan: Plan, masks: Masks, latents: Tensor) -> Video:
    """Clean latents as a clip; with `pixel_blend` the source's own pixels beyond M*'s margin."""
    edited = editor.decode(latents, video.fps)
    fusion = plan.settings.fusion
    if not fusion.pixel_blend:
        return edited
    weight = mask_making.faded(masks.at(plan.request.steps - 1), fusion.margin)
    return mask_making.blend_pixels(edited, video, weight)


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


def describe(editor: Editor) -> dict[str, str]:
    """An editor as `result.json` names it."""
    return {
        "name": editor.name,
        "checkpoint": editor.checkpoint,
        "device": str(editor.device),
        "dtype": str(editor.dtype).removeprefix("torch."),
    }


def _feature_store(plan: Plan) -> FeatureStore:
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


class _Stages:
    """Times the stages of an edit, over all windows, and reports them."""

    def __init__(self, progress: Progress | None, windows: int) -> None:
        self.progress, self.windows, self.window = progress, windows, 0
        self.seconds: dict[str, float] = {}

    def next_window(self) -> None:
        self.window += 1

    def tell(self, stage: str, done: int, total: int) -> None:
        """The `Progress` of the window at hand."""
        if self.progress:
            where = f"{self.window}/{self.windows} " if self.windows > 1 else ""
            self.progress(f"{where}{stage}", done, total)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        with record_function(f"freemask.{stage}"):
            yield
        seconds = time.perf_counter() - started
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if stage in ("mask", "decode"):
            self.tell(stage, 1, 1)
