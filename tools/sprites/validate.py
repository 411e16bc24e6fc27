"""Measures the demo checkpoints on held-out clips and captions.

    python -m tools.sprites.validate

The figures are printed and written to freemask/assets/validation.json, with a hash of the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    MotionAdapter,
    StableDiffusionPipeline,
    TextToVideoSDPipeline,
)
from tqdm import tqdm
from transformers import CLIPModel, CLIPTokenizer

from freemask.data import sprites
from freemask.evaluation import metrics, template_matching
from freemask.types import Video
from tools.sprites.data import to_pixels
from tools.sprites.stages import ASSETS, SIZE
from tools.sprites.tokenizer import encode_captions

VALIDATION_SEED = 2_000_000  # of the first held-out scene


@torch.no_grad()
def validate(clips: int, steps: int, guidance: float) -> dict[str, float]:
    """Measures every shipped network on held-out clips and captions.

    clips: number of clips.
    steps: denoising steps.
    guidance: guidance scale.

    Returns figures by name; all but "vae psnr" (in dB) are shares in [0, 1].
    """
    scenes = [sprites.sample_scene(VALIDATION_SEED + i, "heldout", size=SIZE) for i in range(clips)]
    figures = {"vae psnr": reconstruction(scenes), "clip retrieval": retrieval(scenes)}
    for name in ("sprites-sd", "sprites-t2v", "animatediff"):
        hits = []
        for seed, scene in enumerate(tqdm(scenes, desc=name, mininterval=5)):
            hits.append(recognised(generate(name, scene.caption, seed, steps, guidance), scene))
        for column in hits[0]:
            figures[f"{name} {column}"] = float(np.mean([hit[column] for hit in hits]))
    return figures


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

    name: "sprites-sd", "sprites-t2v", or "animatediff" for `sprites-sd` with its motion adapter.
    """
    loader, folder, parts = StableDiffusionPipeline, ASSETS / "sprites-sd", {}
    if name == "sprites-t2v":
        loader, folder = TextToVideoSDPipeline, ASSETS / name
    elif name == "animatediff":
        adapter = MotionAdapter.from_pretrained(folder / "motion_adapter")
        loader, parts = AnimateDiffPipeline, {"motion_adapter": adapter}
    loaded = loader.from_pretrained(folder, torch_dtype=torch.float32, **parts)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def generate(name: str, caption: str, seed: int, steps: int, guidance: float) -> Video:
    """Generates a clip of a checkpoint with its pipeline in diffusers."""
    moves = name != "sprites-sd"
    arguments: dict[str, Any] = {"num_frames": 8} if moves else {}
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
    sighting = template_matching.find_object(video, scene.object, scene.colour, scene.style)
    region = template_matching.covered_region(video, scene.object, sighting)
    found = {
        "object": template_matching.recognise_object(video, scene.colour, scene.style)
        == scene.object,
        "ground": template_matching.recognise_ground(video, 1 - region, scene.style)
        == scene.ground,
    }
    if video.num_frames > 1:
        found["motion"] = template_matching.recognise_motion(sighting) == scene.motion
    return found


def weights_hash() -> str:
    """Returns the SHA-256 of all shipped weights, which ties the figures to them."""
    digest = hashlib.sha256()
    for path in sorted(ASSETS.rglob("*.safetensors")):
        digest.update(path.relative_to(ASSETS).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def write_figures(figures: dict[str, float]) -> None:
    """Prints the figures, and writes them with the hash of the weights."""
    kept = {"figures": figures, "weights": weights_hash()}
    (ASSETS / "validation.json").write_text(json.dumps(kept, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:<24} {value:.3f}")  # noqa: T201


def main() -> None:
    """Measures the checkpoints with the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=64, help="number of held-out clips")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps")
    parser.add_argument("--guidance", type=float, default=7.5, help="guidance scale")
    options = parser.parse_args()
    write_figures(validate(options.clips, options.steps, options.guidance))


if __name__ == "__main__":
    main()
