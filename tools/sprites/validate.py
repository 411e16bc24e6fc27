"""Measures the demo checkpoints on held-out clips and captions.

    python -m tools.sprites.validate [--only sprites-wan]

The figures are printed and written to freemask/assets/validation.json, with a hash of the weights
of each checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    MotionAdapter,
    StableDiffusionPipeline,
    TextToVideoSDPipeline,
    WanPipeline,
)
from tqdm import tqdm
from transformers import CLIPModel, CLIPTokenizer

from freemask.data import sprites
from freemask.evaluation import metrics, template_matching
from freemask.types import Video
from tools.sprites.data import to_pixels
from tools.sprites.stages import ASSETS, SIZE
from tools.sprites.tokenizer import encode_captions
from tools.sprites.wan_data import exported_vae

VALIDATION_SEED = 2_000_000  # of the first held-out scene


GUIDANCE = {"sprites-wan": 5.0}  # the default of its pipeline; 7.5 for the others
GENERATORS = {  # name -> frames of its clips
    "sprites-sd": 1,
    "sprites-t2v": 8,
    "animatediff": 8,
    "sprites-wan": 9,
}


@torch.no_grad()
def validate(
    names: Sequence[str], clips: int, steps: int, guidance: float | None = None
) -> dict[str, float]:
    """Measures networks on held-out clips and captions.

    names: of GENERATORS.
    clips: number of clips.
    steps: denoising steps.
    guidance: guidance scale; None takes GUIDANCE.

    Returns figures by name; all but "vae psnr" (in dB) are shares in [0, 1].
    """
    figures: dict[str, float] = {}
    if "sprites-t2v" in names:
        scenes = held_out_scenes(clips)
        figures |= {"vae psnr": reconstruction(scenes), "clip retrieval": retrieval(scenes)}
    for name in names:
        scenes = held_out_scenes(clips, GENERATORS[name] if name == "sprites-wan" else 8)
        if name == "sprites-wan":
            figures["sprites-wan vae psnr"] = wan_reconstruction(scenes)
        hits = []
        for seed, scene in enumerate(tqdm(scenes, desc=name, mininterval=5)):
            scale = GUIDANCE.get(name, 7.5) if guidance is None else guidance
            hits.append(recognised(generate(name, scene.caption, seed, steps, scale), scene))
        for column in hits[0]:
            figures[f"{name} {column}"] = float(np.mean([hit[column] for hit in hits]))
    return figures


def held_out_scenes(count: int, frames: int = 8) -> list[sprites.Scene]:
    """Returns the scenes that the networks are measured on."""
    return [
        sprites.sample_scene(VALIDATION_SEED + i, "heldout", size=SIZE, frames=frames)
        for i in range(count)
    ]


def wan_reconstruction(scenes: list[sprites.Scene]) -> float:
    """Returns the mean PSNR of the reconstructions of the VAE of `sprites-wan`, in dB."""
    vae = exported_vae()
    videos = [scene.render().video for scene in scenes]
    decoded = (vae.decode(vae.encode(v.frames, v.num_frames)) for v in videos)
    return float(np.mean([metrics.psnr(Video(d), v) for d, v in zip(decoded, videos, strict=True)]))


def reconstruction(scenes: list[sprites.Scene]) -> float:
    """Returns the mean PSNR of the VAE's reconstructions, in dB."""
    vae = AutoencoderKL.from_pretrained(ASSETS / "sprites-t2v" / "vae", torch_dtype=torch.float32)
    scores = []
    for scene in scenes:
        video = scene.render().video
        pixels = vae.decode(vae.encode(to_pixels(video.frames)).latent_dist.mean).sample
        decoded = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).numpy()
        scores.append(metrics.psnr(Video(decoded), video))
    return float(np.mean(scores))


def retrieval(scenes: list[sprites.Scene]) -> float:
    """Returns the share of captions to which their own clip is the most similar of all."""
    folder = ASSETS / "sprites-clip"
    clip = CLIPModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokens = encode_captions(tokenizer, [scene.caption for scene in scenes])
    frames = np.stack([scene.render().video.frames[0] for scene in scenes])
    logits = clip(input_ids=tokens, pixel_values=to_pixels(frames)).logits_per_text
    return float((logits.argmax(1) == torch.arange(len(scenes))).float().mean())


@lru_cache
def pipeline(name: str) -> Any:
    """Loads a checkpoint with its pipeline in diffusers.

    name: of GENERATORS; "animatediff" is `sprites-sd` with its motion adapter.
    """
    loader, folder, parts = StableDiffusionPipeline, ASSETS / "sprites-sd", {}
    if name == "sprites-t2v":
        loader, folder = TextToVideoSDPipeline, ASSETS / name
    elif name == "animatediff":
        adapter = MotionAdapter.from_pretrained(folder / "motion_adapter")
        loader, parts = AnimateDiffPipeline, {"motion_adapter": adapter}
    elif name == "sprites-wan":
        loader, folder = WanPipeline, ASSETS / name
    loaded = loader.from_pretrained(folder, torch_dtype=torch.float32, **parts)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def generate(name: str, caption: str, seed: int, steps: int, guidance: float) -> Video:
    """Generates a clip of a checkpoint with its pipeline in diffusers."""
    moves = GENERATORS[name] > 1
    arguments: dict[str, Any] = {"num_frames": GENERATORS[name]} if moves else {}
    output = pipeline(name)(
        caption,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **arguments,
    )
    frames = output.frames[0] if moves else output.images
    return Video(np.clip(np.rint(frames * 255), 0, 255).astype(np.uint8))


def recognised(video: Video, scene: sprites.Scene) -> dict[str, bool]:
    """Returns whether a generated clip shows the object, ground and motion of its caption."""
    sighting = template_matching.find_object(video, scene.noun, scene.colour, scene.style)
    region = template_matching.covered_region(video, scene.noun, sighting)
    found = {
        "object": template_matching.recognise_object(video, scene.colour, scene.style)
        == scene.object,
        "ground": template_matching.recognise_ground(video, 1 - region, scene.style)
        == scene.ground,
    }
    if video.num_frames > 1:
        found["motion"] = template_matching.recognise_motion(sighting) == scene.motion
    return found


def weights_hash(folder: Path) -> str:
    """Returns the SHA-256 of the weights of a checkpoint, which ties figures to them."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def write_figures(names: Sequence[str], figures: dict[str, float]) -> None:
    """Prints figures, and writes them with the hashes of the weights that they belong to.

    names: what was measured; the figures of other networks stay.
    """
    file = ASSETS / "validation.json"
    kept = json.loads(file.read_text())
    own = {"animatediff": ("sprites-sd",), "sprites-t2v": ("sprites-t2v", "sprites-clip")}
    for folder in {folder for name in names for folder in own.get(name, (name,))}:
        kept["weights"][folder] = weights_hash(ASSETS / folder)
    kept["figures"] |= figures
    file.write_text(json.dumps(kept, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:<24} {value:.3f}")  # noqa: T201


def main() -> None:
    """Measures the checkpoints with the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=64, help="number of held-out clips")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps")
    parser.add_argument("--guidance", type=float, help="guidance scale, instead of each one's own")
    parser.add_argument("--only", choices=GENERATORS, help="measure one network instead of all")
    options = parser.parse_args()
    names = [options.only] if options.only else list(GENERATORS)
    write_figures(names, validate(names, options.clips, options.steps, options.guidance))


if __name__ == "__main__":
    main()
