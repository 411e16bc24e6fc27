"""The whole of FreeMask: invert, find the mask, denoise under fusion, decode.

    video -> latents -> invert (reading word maps) -> codebook selects -> M*
          -> denoise under fusion(M*) -> video

Source: FreeMask (arXiv 2409.20500). Words and shapes are those of `types` and `config`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

from freemask import masks as mask_making
from freemask import mmc, prompts
from freemask.capture import Capture, Probe
from freemask.config import Settings
from freemask.datasets import ClipSource, load_clips
from freemask.editors.editor import Editor
from freemask.fusion import FeatureStore, Fusion, in_window
from freemask.inversion import check_finite, ddim_invert, make_scheduler
from freemask.memory import PeakMemory, return_unused
from freemask.parts import Parts
from freemask.plan import Plan, check_inversion, prepare, word_weights
from freemask.result import EditResult
from freemask.types import EditRequest, Inversion, Masks, Progress, Site, Trajectory, Video


def edit(
    editor: Editor,
    video: Video,
    request: EditRequest,
    *,
    mask: Tensor | None = None,
    inversion: Inversion | None = None,
    progress: Progress | None = None,
) -> EditResult:
    """Edit a video from text.

    mask: `(F, H, W)` in [0, 1], 1 = edit, instead of the one that the word maps give.
    inversion: of this clip under this request, made before by `invert_for`; else it is made now.
    progress: called with the stage, the steps done and the steps in all.

    The same request on the same machine gives the same bytes.
    Raises `InputError` for prompts, words, settings or sizes that do not fit, before any long work;
    `FloatingPointError` when latents stop being finite.
    """
    plan = prepare(editor, video, request, mask)
    if inversion is not None:
        check_inversion(inversion, plan)
    stage = _Stages(progress)
    with PeakMemory(editor.device) as memory:
        with stage("invert"):
            inversion = inversion or invert_for(editor, video, plan, progress=progress)
        with stage("mask"):
            masks = find_masks(video, plan, inversion)
        with stage("denoise"):
            latents = denoise(editor, plan, inversion, masks, progress=progress)
        with stage("decode"):
            edited = decode(editor, video, plan, masks, latents)
    return EditResult(
        video=edited,
        source=video,
        masks=masks,
        trajectory=inversion.trajectory,
        request=plan.request,
        settings=plan.settings,
        timings=stage.seconds,
        peak_memory=memory.bytes,
        editor=describe(editor),
    )


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
    return _invert(editor, video, prompt, sites, scheduler, capture, progress)


def invert_for(
    editor: Editor, video: Video, plan: Plan, *, progress: Progress | None = None
) -> Inversion:
    """The inversion that an edit needs: its word maps, and its features if they are stored."""
    settings = plan.settings
    store = _feature_store(plan) if settings.features == "store" else None
    capture = Capture(plan.probes, video.num_frames, store=store, backend=settings.backend)
    return _invert(
        editor, video, plan.request.source, plan.sites, plan.scheduler, capture, progress
    )


def _invert(
    editor: Editor,
    video: Video,
    prompt: str,
    sites: tuple[Site, ...],
    scheduler: DDIMScheduler,
    capture: Capture,
    progress: Progress | None,
) -> Inversion:
    latents, text = editor.encode(video), editor.encode_text([prompt])
    with editor.hooked(sites, capture):
        trajectory = ddim_invert(
            lambda z, t: editor.predict(z, t, text),
            latents.to(editor.device),
            scheduler,
            progress=progress,
            before_look=capture.at,
        )
    if capture.store is not None:
        capture.store.flush()
    return Inversion(trajectory, capture.word_maps(trajectory.timesteps), prompt, capture.store)


def find_masks(video: Video, plan: Plan, inversion: Inversion) -> Masks:
    """`M*`: the user's, or what the selected cells show, or the whole frame where none is used."""
    if plan.user_mask is not None:
        return plan.user_mask
    if plan.selection is None:
        return mask_making.whole_frame(video.num_frames, video.size)
    return mask_making.make_masks(
        inversion.word_maps, plan.selection, plan.settings.mask, video.size
    )


@torch.no_grad()
def denoise(
    editor: Editor,
    plan: Plan,
    inversion: Inversion,
    masks: Masks,
    *,
    progress: Progress | None = None,
) -> Tensor:
    """From the inverted noise back to clean latents `(1, C, F, h, w)`, fusing on the way."""
    settings, steps, guidance = plan.settings, plan.request.steps, plan.request.guidance
    trajectory = Trajectory(
        inversion.trajectory.latents.to(editor.device), inversion.trajectory.timesteps
    )
    fusion = Fusion(
        settings.fusion,
        steps,
        masks.to(editor.device),
        plan.tokens,
        store=inversion.features if settings.features == "store" else None,
        guided=guidance != 1,
        backend=settings.backend,
    )
    generator = torch.Generator().manual_seed(plan.request.seed)
    current, timesteps = trajectory.before(plan.first_step), plan.scheduler.timesteps.tolist()
    with editor.hooked(plan.sites, fusion):
        for step in range(plan.first_step, steps):
            fusion.at(step)
            source, timestep = trajectory.before(step), timesteps[step]
            batch = torch.cat([source if b == "source" else current for b in fusion.branches])
            text = torch.cat([plan.text[branch] for branch in fusion.branches])
            predicted = editor.predict(batch, timestep, text).float()
            guided = predicted[-1:]
            if fusion.guided:
                guided = predicted[-2:-1] + guidance * (guided - predicted[-2:-1])
            current = plan.scheduler.step(
                guided, timestep, current, eta=settings.eta, generator=generator
            ).prev_sample
            if in_window(settings.fusion.latent_blend, step, steps):
                current = _blend_latents(
                    current, trajectory.after(step), fusion.masks.at(step), settings
                )
            check_finite(current, f"denoising step {step + 1} of {steps} (t = {timestep})")
            if progress:
                progress("denoise", step + 1 - plan.first_step, steps - plan.first_step)
    return current


def _blend_latents(current: Tensor, source: Tensor, mask: Tensor, settings: Settings) -> Tensor:
    """`M z + (1 - M) z_source`; both have the noise level that the step has reached."""
    if "latents" not in settings.fusion.masked:
        return source
    weight = F.interpolate(mask[None, None], size=(len(mask), *current.shape[-2:]), mode="area")
    return torch.lerp(source, current, weight)


def decode(editor: Editor, video: Video, plan: Plan, masks: Masks, latents: Tensor) -> Video:
    """Clean latents as a clip; with `pixel_blend` the source's own pixels stay outside `M*`."""
    edited = editor.decode(latents, video.fps)
    if not plan.settings.fusion.pixel_blend:
        return edited
    feather = round(plan.settings.fusion.feather * min(video.size))
    last = masks.at(plan.request.steps - 1)
    return mask_making.blend_pixels(edited, video, last, feather=feather)


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


def calibrate(
    editor: Editor,
    clips: Iterable[ClipSource],
    *,
    data: str,
    steps: int = 50,
    parts: Parts | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> mmc.Codebook:
    """Measure MMC on labelled clips. One clip's word maps live at a time.

    data: what the clips are, for the codebook. parts: where to keep what is measured, so that an
    interrupted calibration goes on; it gives the same codebook. report: is told of clips left out.
    """
    calibration = mmc.Calibration()
    for source in clips:
        cost = measure_clip(
            editor, source, steps=steps, parts=parts, report=report, progress=progress
        )
        if cost is not None:
            calibration.add(cost)
    return calibration.codebook(editor=editor.name, checkpoint=editor.fingerprint(), data=data)


def measure_clip(
    editor: Editor,
    source: ClipSource,
    *,
    steps: int,
    parts: Parts | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> mmc.ClipCost | None:
    """The cost of one clip, measured or taken from `parts`; None if the clip cannot serve."""
    file = f"{source.name}.npz"
    if parts and parts.path(file).exists():
        return mmc.ClipCost.load(parts.path(file))
    for clip in load_clips([source], report):
        inversion = invert(
            editor, clip.video, clip.prompt, words=clip.word, steps=steps, progress=progress
        )
        cost = mmc.ClipCost.measure(inversion.word_maps["source"], torch.from_numpy(clip.mask))
        if parts:
            parts.write(file, cost.to_bytes())
        del inversion
        return_unused()
        return cost
    return None


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
    """Times the stages of an edit and reports the short ones."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - started
        if self.progress and stage in ("mask", "decode"):
            self.progress(stage, 1, 1)
