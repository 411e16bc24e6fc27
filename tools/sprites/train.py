"""Trains the demo checkpoints on sprites, stage by stage.

    python -m tools.sprites.train vae clip sd t2v motion --work runs/sprites
    python -m tools.sprites.train wan_image wan_vae wan --work runs/sprites-wan

A stage resumes from the newest checkpoint in WORK/STAGE and is skipped if it is finished.
Without a checkpoint it starts from random weights, or with --warm-start from the shipped ones.
Each stage ends with an export of float16 safetensors in diffusers' folder layout to
freemask/assets. Losses are logged as CSV in WORK/STAGE/logs, a folder for each run.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPModel, UMT5EncoderModel

from freemask.io.paths import user_path
from freemask.modules import sprites as training
from tools.sprites.data import ClipData, FrameData, draw_pool, latent_data
from tools.sprites.export import export
from tools.sprites.networks import (
    SCHEDULER_CONFIG,
    VAE_CONFIG,
    PerFrameText,
    clip_config,
    inflated,
    motion_model,
    sd_config,
    shipped,
)
from tools.sprites.stages import ASSETS, SIZE, STAGES, fast_bfloat16, schedule
from tools.sprites.tokenizer import build_tokenizer, encode_captions
from tools.sprites.wan import (
    ShortTextAttention,
    build_wan_tokenizer,
    make_text_encoder,
    make_transformer,
    make_vae,
)
from tools.sprites.wan_data import (
    HELD_OUT_SEED,
    ClipBatches,
    caption_tokens,
    encoded,
    exported_vae,
    latent_pools,
)
from tools.sprites.weights import stage_weights

LOG_VARIANCE = -6.0  # of the VAE's posterior at the start


class SaveLastStep(L.Callback):
    """Saves a checkpoint at the last step, which `ModelCheckpoint` does not reach in general.

    It must come after the weight averaging in the list of callbacks, so that the averages are in
    place when it saves.

    path: the file to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


def moving_average(decay: float, average: Tensor, weight: Tensor, count: Tensor | int) -> Tensor:
    """Returns the moving average of a weight after `count` earlier updates.

    The decay rises to its final value, so that early checkpoints are not dominated by the start.

    decay: the final decay, in [0, 1).
    """
    return torch.lerp(average, weight, 1 - min(decay, (1 + int(count)) / (10 + int(count))))


def fit(
    work: Path, stage: str, module: training.TrainingModule, data: Dataset[Any], devices: int
) -> None:
    """Trains a stage to its last step, from its newest checkpoint if there is one."""
    folder, size = work / stage, STAGES[stage]
    newest = folder / "last.ckpt"
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=devices,
        strategy="ddp_fork" if devices > 1 else "auto",
        max_steps=size.steps,
        max_epochs=-1,
        precision="bf16-mixed" if fast_bfloat16() else "32-true",
        logger=CSVLogger(folder, name="logs", flush_logs_every_n_steps=100),
        log_every_n_steps=20,
        callbacks=[
            WeightAveraging(avg_fn=partial(moving_average, size.ema_decay)),
            SaveLastStep(newest),
            ModelCheckpoint(folder, every_n_train_steps=100, save_last=True, save_top_k=0),
            TQDMProgressBar(refresh_rate=100),
        ],
        enable_model_summary=False,
    )
    loader: Any = DataLoader(
        data, batch_size=size.batch, shuffle=bool(size.batch), drop_last=bool(size.batch)
    )
    trainer.fit(module, loader, ckpt_path=newest if newest.exists() else None)


def train_vae(work: Path, devices: int, warm_start: bool) -> None:
    """Trains the VAE on frames."""
    pool, _ = draw_pool(work, "vae")
    vae = AutoencoderKL(**VAE_CONFIG)
    if warm_start:
        vae.load_state_dict(shipped("sprites-sd", "vae"))
    with torch.no_grad():  # little noise on the latents; training fails with more at the start
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = LOG_VARIANCE
    vae.to(memory_format=torch.channels_last)
    fit(work, "vae", training.AutoencoderTraining(vae, **schedule("vae")), FrameData(pool), devices)


def train_clip(work: Path, devices: int, warm_start: bool) -> None:
    """Trains CLIP on frames and captions; a warm start keeps the text encoder."""
    pool, captions = draw_pool(work, "clip")
    tokenizer = build_tokenizer(captions)
    tokens = encode_captions(tokenizer, captions)
    clip = CLIPModel(clip_config(tokenizer))
    if warm_start:
        weights = load_file(ASSETS / "sprites-clip" / "model.safetensors")
        clip.load_state_dict({key: value.float() for key, value in weights.items()})
        clip.text_model.requires_grad_(False)  # the UNets depend on it
    module = training.ClipTraining(clip, **schedule("clip"))
    fit(work, "clip", module, FrameData(pool, tokens), devices)


def train_sd(work: Path, devices: int, warm_start: bool) -> None:
    """Trains the image UNet on latents of frames."""
    unet = UNet2DConditionModel(**sd_config())
    if warm_start:
        unet.load_state_dict(shipped("sprites-sd", "unet"))
    unet.to(memory_format=torch.channels_last).set_attn_processor(AttnProcessor())
    scheduler = DDPMScheduler(**SCHEDULER_CONFIG)
    module = training.DenoiserTraining(unet, scheduler, compiled=True, **schedule("sd"))
    fit(work, "sd", module, latent_data(work, "sd"), devices)


def train_t2v(work: Path, devices: int, warm_start: bool) -> None:
    """Trains the temporal layers of the video UNet; its spatial weights are `sprites-sd`'s."""
    spatial = shipped("sprites-sd", "unet")
    unet = inflated(spatial)
    if warm_start:
        unet.load_state_dict(shipped("sprites-t2v", "unet"))
    for name, weight in unet.named_parameters():
        weight.requires_grad_(name not in spatial)
    unet.set_attn_processor(AttnProcessor())
    module = training.DenoiserTraining(unet, DDPMScheduler(**SCHEDULER_CONFIG), **schedule("t2v"))
    fit(work, "t2v", module, latent_data(work, "t2v"), devices)


def train_motion(work: Path, devices: int, warm_start: bool) -> None:
    """Trains a motion adapter on the frozen weights of `sprites-sd`."""
    unet = motion_model()
    if warm_start:
        unet.load_state_dict(shipped("sprites-sd", "motion_adapter"), strict=False)
    unet.set_attn_processor(AttnProcessor())
    module = training.DenoiserTraining(
        PerFrameText(unet), DDPMScheduler(**SCHEDULER_CONFIG), **schedule("motion")
    )
    fit(work, "motion", module, latent_data(work, "motion"), devices)


def train_wan_image(work: Path, devices: int, warm_start: bool) -> None:
    """Trains the causal VAE of `sprites-wan` on single frames, which decide most of its weights."""
    pool, _ = draw_pool(work, "wan_image")
    vae = make_vae(LOG_VARIANCE)
    for name, weight in vae.named_parameters():
        weight.requires_grad_("time_conv" not in name)  # a single frame does not reach them
    module = training.AutoencoderTraining(vae, **schedule("wan_image"))
    fit(work, "wan_image", module, ClipData(pool, single=True), devices)


def train_wan_vae(work: Path, devices: int, warm_start: bool) -> None:
    """Trains the causal VAE of `sprites-wan` on clips.

    A warm start trains the encoder too, so the transformer must be trained on from there.
    """
    pool, _ = draw_pool(work, "wan_vae")
    vae = make_vae(LOG_VARIANCE)
    if warm_start:
        vae.load_state_dict(shipped("sprites-wan", "vae"))
    else:
        vae.load_state_dict(stage_weights(work, "wan_image", "vae.", averaged=False))
    module = training.AutoencoderTraining(vae, **schedule("wan_vae"))
    fit(work, "wan_vae", module, ClipData(pool), devices)


def train_wan(work: Path, devices: int, warm_start: bool) -> None:
    """Trains the transformer of `sprites-wan` and its text encoder on latents of clips."""
    pools = latent_pools(work, devices)
    tokenizer = build_wan_tokenizer(pools[0]["captions"])
    transformer, text_encoder = make_transformer(), make_text_encoder(tokenizer)
    if warm_start:
        transformer.load_state_dict(shipped("sprites-wan", "transformer"))
        folder = ASSETS / "sprites-wan" / "text_encoder"
        text_encoder = UMT5EncoderModel.from_pretrained(folder, dtype=torch.float32)
        assert text_encoder.config.vocab_size == len(tokenizer), "the tokenizer has other words"
    attention = ShortTextAttention()
    transformer.set_attn_processor(attention)
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + 32)
    latents, captions = encoded(exported_vae(), seeds, "heldout", 9, SIZE)
    module = training.FlowTraining(
        transformer,
        text_encoder,
        attention.set_bias,
        held_out={"latents": latents.float(), **caption_tokens(tokenizer, captions)},
        muon=fast_bfloat16(),
        compiled=True,
        **schedule("wan"),
    )
    count = STAGES["wan"].steps * devices
    batches = ClipBatches(pools, tokenizer, count, devices, early=not warm_start)
    fit(work, "wan", module, batches, devices)


TRAIN = {
    "vae": train_vae,
    "clip": train_clip,
    "sd": train_sd,
    "t2v": train_t2v,
    "motion": train_motion,
    "wan_image": train_wan_image,
    "wan_vae": train_wan_vae,
    "wan": train_wan,
}


def main() -> None:
    """Trains and exports the stages that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stages", nargs="+", choices=list(STAGES), help="in this order")
    parser.add_argument(
        "--work",
        type=user_path,
        default=Path("runs/sprites"),
        help="folder of clips and checkpoints",
    )
    parser.add_argument("--devices", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--warm-start", action="store_true", help="start from the shipped weights")
    parser.add_argument("--train-steps", type=int, help="instead of each stage's own number")
    parser.add_argument(
        "--learning-rate", type=float, help="the highest, instead of each stage's own"
    )
    parser.add_argument(
        "--export-only", action="store_true", help="export the newest checkpoints without training"
    )
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    given = {"steps": options.train_steps, "learning_rate": options.learning_rate}
    given = {key: value for key, value in given.items() if value is not None}
    STAGES.update({name: replace(stage, **given) for name, stage in STAGES.items()})
    for stage in options.stages:
        if not options.export_only:
            TRAIN[stage](options.work, options.devices, options.warm_start)
        export(options.work, stage)


if __name__ == "__main__":
    main()
