"""Train the demo checkpoints on sprites, stage by stage.

    python tools/train_sprites.py vae clip sd t2v motion --work runs/sprites

Stages are resumable: each continues from the newest checkpoint in `WORK/<stage>/`, and a
finished one is skipped. Without a checkpoint, a stage starts from the shipped weights where
`--warm-start` is given. Every stage exports fp16 safetensors in diffusers' folder layout.
Losses are logged as CSV in `WORK/<stage>/logs`.
"""

from __future__ import annotations

import argparse
import json
import string
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNet3DConditionModel,
    UNetMotionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
)

from freemask import sprites
from freemask.modules import training

ASSETS = Path(__file__).parents[1] / "freemask" / "assets"
SIZE = (64, 64)
POSITIONS = 32  # tokens of a caption, start and end included
TEXT_WIDTH = 96
DROPPED_CAPTIONS = 0.1
LOG_VARIANCE = -6.0  # of the VAE's latents at the start
# Words a person is likely to try; the vocabulary gives each one token. All others are spelled.
EXTRA_WORDS = """
an and at in of with to from by over under near the is it its two three big small little old young
white black brown pink orange purple gray yellow silver dark light bright snowy sandy green wolf fox
rabbit horse sheep bird fish truck boat train man woman child boy girl person dancer skier robot
watermelon apple carrot strawberry table floor room house street forest mountain beach river lake
field desert city park tree trees flower flowers leaf rock stone wall window bridge night day sunset
sunrise rain cloud clouds fire ice walking running eating driving jumping flying swimming sitting
standing dancing playing looking turning through across along behind painting drawing photo video
cartoon anime watercolor oil van gogh pixel art comic wooden metal glass paper toy lego chocolate
""".split()


@dataclass(frozen=True)
class Stage:
    """Size of one stage's training."""

    steps: int
    batch: int  # per process
    learning_rate: float
    examples: int  # distinct frames or clips drawn
    weight_decay: float = 0.0
    ema_decay: float = 0.999


STAGES = {
    "vae": Stage(steps=2800, batch=8, learning_rate=1.5e-3, examples=40_000),
    "clip": Stage(
        steps=1000, batch=64, learning_rate=1e-3, examples=40_000, weight_decay=0.05, ema_decay=0.99
    ),
    "sd": Stage(steps=14000, batch=16, learning_rate=1e-3, examples=40_000),
    "t2v": Stage(steps=4000, batch=2, learning_rate=1e-3, examples=6_000),
    "motion": Stage(steps=3000, batch=2, learning_rate=1e-3, examples=6_000),
}
FRAMES = {"vae": 1, "clip": 1, "sd": 1, "t2v": 8, "motion": 8}
VAE_CONFIG = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (32, 48, 64),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
    "sample_size": SIZE[0],
    "scaling_factor": 1.0,
}
CHANNELS, HEAD_DIM = (64, 96, 96), 16
UNET_CONFIG = {
    "sample_size": SIZE[0] // 4,
    "block_out_channels": CHANNELS,
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_WIDTH,
    "norm_num_groups": 16,
}
MOTION_CONFIG = {  # an AnimateDiff adapter for `sprites-sd`
    "block_out_channels": CHANNELS,
    "motion_layers_per_block": 1,
    "motion_num_attention_heads": 4,
    "motion_norm_num_groups": 16,
}
SCHEDULER_CONFIG = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",  # as Stable Diffusion
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "steps_offset": 1,
}

MODEL_INDEX = {
    "sd": {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.35.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
    "t2v": {
        "_class_name": "TextToVideoSDPipeline",
        "_diffusers_version": "0.35.0",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
}


# --- data -----------------------------------------------------------------------------------


def draw_pool(work: Path, stage: str, split: sprites.Split = "train") -> tuple[Path, list[str]]:
    """Draw a stage's clips once: uint8 `(N, F, H, W, 3)` on disk, and their captions."""
    count, frames = STAGES[stage].examples, FRAMES[stage]
    path = work / f"pool-{count}x{frames}.npy"
    captions = path.with_suffix(".json")
    if not captions.exists():
        pool = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.uint8, shape=(count, frames, *SIZE, 3)
        )
        texts = []
        for seed in tqdm(range(count), desc=f"drawing {path.name}", mininterval=5):
            clip = sprites.sample_scene(seed, split, frames=frames, size=SIZE).render()
            pool[seed] = clip.video.frames
            texts.append(clip.caption)
        pool.flush()
        captions.write_text(json.dumps(texts))
    return path, json.loads(captions.read_text())


def to_pixels(frames: np.ndarray) -> Tensor:
    """uint8 `(..., H, W, 3)` to float `(..., 3, H, W)` in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3).float() / 127.5 - 1


class FrameData(Dataset):
    """First frames of the pool, as the VAE and the image encoder see them."""

    def __init__(self, pool: Path, tokens: Tensor | None = None) -> None:
        self.frames, self.tokens = np.load(pool, mmap_mode="r"), tokens

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        example = {"pixels": to_pixels(self.frames[index, 0])}
        if self.tokens is not None:
            example["tokens"] = self.tokens[index]
        return example


class LatentData(Dataset):
    """Latents with the text states of their captions, some captions dropped."""

    def __init__(self, latents: Tensor, text: Tensor, caption_of: Tensor) -> None:
        self.latents, self.text, self.caption_of = latents, text, caption_of

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        dropped = float(torch.rand(())) < DROPPED_CAPTIONS
        caption = len(self.text) - 1 if dropped else int(self.caption_of[index])
        return {"latents": self.latents[index].float(), "text": self.text[caption].float()}


# --- training -------------------------------------------------------------------------------


class SaveLastStep(L.Callback):
    """Saves when training ends, in the process that trained: the last step is rarely a round one.

    It belongs behind the averaging of weights, which then has put the averages in their place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


def fit(
    work: Path, stage: str, module: training.TrainingModule, data: Dataset[Any], devices: int
) -> None:
    """Train to the stage's last step; resumes from the newest checkpoint there is."""
    folder, size = work / stage, STAGES[stage]
    newest = folder / "last.ckpt"
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=devices,
        strategy="ddp_fork" if devices > 1 else "auto",
        max_steps=size.steps,
        max_epochs=-1,
        precision="bf16-mixed",
        logger=CSVLogger(folder, name="logs", version="", flush_logs_every_n_steps=100),
        log_every_n_steps=20,
        callbacks=[
            EMAWeightAveraging(decay=size.ema_decay),
            SaveLastStep(newest),
            ModelCheckpoint(folder, every_n_train_steps=100, save_last=True, save_top_k=0),
            TQDMProgressBar(refresh_rate=100),
        ],
        enable_model_summary=False,
    )
    loader = DataLoader(data, batch_size=size.batch, shuffle=True, drop_last=True)
    trainer.fit(module, loader, ckpt_path=newest if newest.exists() else None)


def averaged_weights(work: Path, stage: str, prefix: str) -> dict[str, Tensor]:
    """The averaged weights of a stage's newest checkpoint."""
    state = torch.load(work / stage / "last.ckpt", map_location="cpu", weights_only=True)
    weights: dict[str, Tensor] = state["state_dict"]
    print(f"{stage}: weights of step {state['global_step']}")  # noqa: T201
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def schedule(stage: str) -> dict[str, Any]:
    size = STAGES[stage]
    return {
        "learning_rate": size.learning_rate,
        "total_steps": size.steps,
        "weight_decay": size.weight_decay,
    }


def train_vae(work: Path, devices: int, warm_start: bool) -> None:
    pool, _ = draw_pool(work, "vae")
    vae = AutoencoderKL(**VAE_CONFIG)
    if warm_start:
        vae.load_state_dict(shipped("sprites-sd", "vae"))
    with torch.no_grad():  # nearly noiseless latents: more noise at the start ruins the training
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = LOG_VARIANCE
    vae.to(memory_format=torch.channels_last)
    fit(work, "vae", training.AutoencoderTraining(vae, **schedule("vae")), FrameData(pool), devices)


def export_vae(work: Path) -> None:
    vae = AutoencoderKL(**VAE_CONFIG)
    vae.load_state_dict(averaged_weights(work, "vae", "vae."))
    pool, _ = draw_pool(work, "vae")
    whiten(vae, np.load(pool, mmap_mode="r")[:2000, 0])
    vae.half().save_pretrained(ASSETS / "sprites-sd" / "vae")
    vae.save_pretrained(ASSETS / "sprites-t2v" / "vae")


@torch.no_grad()
def whiten(vae: AutoencoderKL, frames: np.ndarray) -> None:
    """Give the latents of `frames (N, H, W, 3)` mean 0 and variance 1 in every channel, in place.

    The affine map and its inverse are folded into the 1x1 convolutions around the latents, so the
    reconstruction stays as it was and `scaling_factor` is 1.
    """
    parts = np.array_split(frames, max(1, len(frames) // 100))
    means = torch.cat([vae.encode(to_pixels(part)).latent_dist.mean for part in parts])
    mean, std = means.mean((0, 2, 3)), means.std((0, 2, 3))
    channels = len(mean)
    encode, decode = vae.quant_conv, vae.post_quant_conv
    encode.weight[:channels] /= std[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean) / std
    encode.bias[channels:] -= 2 * std.log()  # the posterior's log variance
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= std[None, :, None, None]


def train_clip(work: Path, devices: int, warm_start: bool) -> None:
    pool, captions = draw_pool(work, "clip")
    tokenizer = build_tokenizer(work)
    tokens = encode_captions(tokenizer, captions)
    clip = CLIPModel(clip_config(tokenizer))
    if warm_start:
        weights = load_file(ASSETS / "sprites-clip" / "model.safetensors")
        clip.load_state_dict({key: value.float() for key, value in weights.items()})
        clip.text_model.requires_grad_(False)  # the UNets were trained on it
    module = training.ClipTraining(clip, **schedule("clip"))
    fit(work, "clip", module, FrameData(pool, tokens), devices)


def export_clip(work: Path) -> None:
    tokenizer = build_tokenizer(work)
    clip = CLIPModel(clip_config(tokenizer))
    clip.load_state_dict(averaged_weights(work, "clip", "clip."))
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(clip.text_model.state_dict())
    clip.half().save_pretrained(ASSETS / "sprites-clip")
    CLIPImageProcessor(
        size={"shortest_edge": SIZE[0]},
        crop_size={"height": SIZE[0], "width": SIZE[1]},
        image_mean=[0.5] * 3,  # pixels in [-1, 1], as in training
        image_std=[0.5] * 3,
    ).save_pretrained(ASSETS / "sprites-clip")
    say_float32(ASSETS / "sprites-clip")
    save_tokenizer(tokenizer, ASSETS / "sprites-clip")
    for name in ("sprites-sd", "sprites-t2v"):
        folder = ASSETS / name / "text_encoder"
        text.half().save_pretrained(folder)
        say_float32(folder)
        # under the names that Stable Diffusion's own folders use, which every version reads
        named = {f"text_model.{key}": value for key, value in text.state_dict().items()}
        save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
        save_tokenizer(tokenizer, ASSETS / name / "tokenizer")


def say_float32(folder: Path) -> None:
    """Have transformers load float32 by default, as diffusers does: parts must agree."""
    path = folder / "config.json"

    def widened(config: dict[str, Any]) -> dict[str, Any]:
        inner = {k: widened(v) for k, v in config.items() if isinstance(v, dict)}
        return config | inner | ({"dtype": "float32"} if "dtype" in config else {})

    path.write_text(json.dumps(widened(json.loads(path.read_text())), indent=2) + "\n")


def build_tokenizer(work: Path) -> CLIPTokenizer:
    """Byte-pair merges that make every caption word, and the common words, one token."""
    _, captions = draw_pool(work, "clip")
    words = sorted({word for caption in captions for word in caption.split()})
    letters = list(string.printable.strip())
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(words + EXTRA_WORDS + letters, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    return CLIPTokenizer(learned["vocab"], merges, model_max_length=POSITIONS)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """In the layout of today's and of older transformers (`vocab.json`, `merges.txt`)."""
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [" ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


def encode_captions(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids `(N, POSITIONS)`, padded."""
    ids: Tensor = tokenizer(captions, padding="max_length", return_tensors="pt")["input_ids"]
    return ids


def clip_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    shared = {"hidden_size": TEXT_WIDTH, "intermediate_size": 4 * TEXT_WIDTH}
    shared |= {"num_attention_heads": 3, "projection_dim": TEXT_WIDTH}
    text = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 2,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"num_hidden_layers": 3, "image_size": SIZE[0], "patch_size": 8}
    return CLIPConfig(
        text_config=shared | text, vision_config=shared | vision, projection_dim=TEXT_WIDTH
    )


@torch.no_grad()
def latent_data(work: Path, stage: str) -> LatentData:
    """Encode a stage's pool with the exported VAE and text encoder; cached on disk."""
    pool, captions = draw_pool(work, stage)
    cache = work / f"latents-{pool.stem.removeprefix('pool-')}.pt"
    if not cache.exists():
        vae = AutoencoderKL.from_pretrained(
            ASSETS / "sprites-sd" / "vae", torch_dtype=torch.float32
        )
        frames = np.load(pool, mmap_mode="r")
        batches = np.array_split(np.arange(len(frames)), max(1, frames.size // (64 * 64 * 3 * 64)))
        vae.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents = [
                vae.encode(to_pixels(frames[b]).flatten(0, 1)).latent_dist.mean.half()
                for b in tqdm(batches, desc=f"encoding {pool.name}", mininterval=5)
            ]
        torch.save(torch.cat(latents), cache)
    latents = torch.load(cache, weights_only=True).unflatten(0, (-1, FRAMES[stage])).transpose(1, 2)
    tokenizer = CLIPTokenizer.from_pretrained(ASSETS / "sprites-sd" / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(
        ASSETS / "sprites-sd" / "text_encoder", torch_dtype=torch.float32
    )
    known = [*sorted(set(captions)), ""]
    tokens = encode_captions(tokenizer, known)
    text = torch.cat([encoder(t).last_hidden_state.half() for t in tokens.split(256)])
    index = {caption: i for i, caption in enumerate(known)}
    caption_of = torch.tensor([index[c] for c in captions])
    return LatentData(latents.squeeze(2), text, caption_of)


def train_sd(work: Path, devices: int, warm_start: bool) -> None:
    unet = UNet2DConditionModel(**sd_config())
    if warm_start:
        unet.load_state_dict(shipped("sprites-sd", "unet"))
    unet.to(memory_format=torch.channels_last).set_attn_processor(AttnProcessor())
    scheduler = DDPMScheduler(**SCHEDULER_CONFIG)
    module = training.DenoiserTraining(unet, scheduler, compiled=True, **schedule("sd"))
    fit(work, "sd", module, latent_data(work, "sd"), devices)


def sd_config() -> dict[str, Any]:
    return UNET_CONFIG | {
        "down_block_types": ("CrossAttnDownBlock2D",) * 3,
        "up_block_types": ("CrossAttnUpBlock2D",) * 3,
        # diffusers' 2D models take the number of heads under this name, its 3D ones their width
        "attention_head_dim": tuple(c // HEAD_DIM for c in CHANNELS),
        "use_linear_projection": True,
    }


def t2v_config() -> dict[str, Any]:
    return UNET_CONFIG | {
        "down_block_types": ("CrossAttnDownBlock3D",) * 3,
        "up_block_types": ("CrossAttnUpBlock3D",) * 3,
        "attention_head_dim": HEAD_DIM,
    }


def shipped(name: str, part: str) -> dict[str, Tensor]:
    """The weights that the repository holds, in float32."""
    weights = load_file(ASSETS / name / part / "diffusion_pytorch_model.safetensors")
    return {key: value.float() for key, value in weights.items()}


def inflated(spatial: dict[str, Tensor]) -> UNet3DConditionModel:
    """A temporal model that treats every frame as the image model does, until it is trained."""
    unet = UNet3DConditionModel(**t2v_config())
    for module in unet.modules():
        if isinstance(module, TransformerTemporalModel):
            torch.nn.init.zeros_(module.proj_out.weight)
            torch.nn.init.zeros_(module.proj_out.bias)
    unet.load_state_dict(spatial, strict=False)
    return unet


def train_t2v(work: Path, devices: int, warm_start: bool) -> None:
    """Temporal layers only: the spatial weights are those of `sprites-sd` and stay."""
    spatial = shipped("sprites-sd", "unet")
    unet = inflated(spatial)
    if warm_start:
        unet.load_state_dict(shipped("sprites-t2v", "unet"))
    for name, weight in unet.named_parameters():
        weight.requires_grad_(name not in spatial)
    unet.set_attn_processor(AttnProcessor())
    module = training.DenoiserTraining(unet, DDPMScheduler(**SCHEDULER_CONFIG), **schedule("t2v"))
    fit(work, "t2v", module, latent_data(work, "t2v"), devices)


class PerFrameText(torch.nn.Module):
    """A motion model that is given the text of a clip once, not once for every frame."""

    def __init__(self, unet: UNetMotionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, noisy: Tensor, steps: Tensor, text: Tensor, **options: Any) -> Any:
        return self.unet(noisy, steps, text.repeat_interleave(noisy.shape[2], dim=0), **options)


def motion_model() -> UNetMotionModel:
    """The image model with a motion adapter that adds nothing, until it is trained."""
    spatial = UNet2DConditionModel(**sd_config())
    spatial.load_state_dict(shipped("sprites-sd", "unet"))
    unet = UNetMotionModel.from_unet2d(spatial, MotionAdapter(**MOTION_CONFIG))
    for module in unet.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            torch.nn.init.zeros_(module.proj_out.weight)
            torch.nn.init.zeros_(module.proj_out.bias)
    unet.requires_grad_(False)
    for name, weight in unet.named_parameters():
        weight.requires_grad_("motion_modules" in name)
    return unet


def train_motion(work: Path, devices: int, warm_start: bool) -> None:
    """Motion modules only: the weights of `sprites-sd` stay."""
    unet = motion_model()
    if warm_start:
        unet.load_state_dict(shipped("sprites-sd", "motion_adapter"), strict=False)
    unet.set_attn_processor(AttnProcessor())
    module = training.DenoiserTraining(
        PerFrameText(unet), DDPMScheduler(**SCHEDULER_CONFIG), **schedule("motion")
    )
    fit(work, "motion", module, latent_data(work, "motion"), devices)


def export_motion(work: Path) -> None:
    unet = motion_model()
    unet.load_state_dict(averaged_weights(work, "motion", "unet.unet."))
    folder = ASSETS / "sprites-sd" / "motion_adapter"
    unet.save_motion_modules(str(folder))  # in float32, whatever its dtype
    adapter = MotionAdapter(**MOTION_CONFIG)
    adapter.load_state_dict(MotionAdapter.from_pretrained(folder).state_dict())
    adapter.half().save_pretrained(folder)


def export_unet(work: Path, stage: str) -> None:
    folder = ASSETS / f"sprites-{stage}"
    makers = {"sd": (UNet2DConditionModel, sd_config), "t2v": (UNet3DConditionModel, t2v_config)}
    network, config = makers[stage]
    unet = network(**config())
    unet.load_state_dict(averaged_weights(work, stage, "unet."))
    unet.half().save_pretrained(folder / "unet")
    DDIMScheduler(**SCHEDULER_CONFIG).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX[stage], indent=2) + "\n")


def export(work: Path, stage: str) -> None:
    if stage in ("sd", "t2v"):
        export_unet(work, stage)
    else:
        {"vae": export_vae, "clip": export_clip, "motion": export_motion}[stage](work)


def train(work: Path, stage: str, devices: int, warm_start: bool) -> None:
    stages = {
        "vae": train_vae, "clip": train_clip, "sd": train_sd, "t2v": train_t2v,
        "motion": train_motion,
    }  # fmt: skip
    stages[stage](work, devices, warm_start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stages", nargs="+", choices=list(STAGES))
    parser.add_argument("--work", type=Path, default=Path("runs/sprites"))
    parser.add_argument("--devices", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--warm-start", action="store_true", help="start from the shipped weights")
    parser.add_argument("--train-steps", type=int, help="in place of the stages' own numbers")
    parser.add_argument("--learning-rate", type=float, help="the highest, likewise")
    parser.add_argument("--export-only", action="store_true", help="export the newest checkpoint")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    given = {"steps": options.train_steps, "learning_rate": options.learning_rate}
    given = {key: value for key, value in given.items() if value is not None}
    STAGES.update({name: replace(stage, **given) for name, stage in STAGES.items()})
    for stage in options.stages:
        if not options.export_only:
            train(options.work, stage, options.devices, options.warm_start)
        export(options.work, stage)


if __name__ == "__main__":
    main()
