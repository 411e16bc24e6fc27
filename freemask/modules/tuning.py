"""Tune-A-Video's one-shot tuning (Wu et al. 2023, arXiv 2212.11565): a UNet learns one clip.

Query projections of self and cross attention and all temporal attention are trained to predict the
noise in the clip's latents under its prompt. The folder that comes out has the original layout.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from torch import Tensor
from torch.utils.data import DataLoader

from freemask.editors import checkpoints
from freemask.editors.editor import CODEBOOK
from freemask.editors.inflated import InflatedEditor
from freemask.editors.registry import load_editor
from freemask.editors.tuned import TUNED
from freemask.io.atomic import check_writable
from freemask.io.resumable import ResumableFolder
from freemask.io.video import write_video
from freemask.prompts.tokens import check_prompt
from freemask.sampling.generation import generate
from freemask.types import InputError, Video

TRAINED = ("attn1.to_q", "attn2.to_q", "attn_temp")
WEIGHTS = "diffusion_pytorch_model.bin"  # what the original layout's readers look for


@dataclass(frozen=True)
class TuningRequest:
    """What to tune on, and where to write.

    checkpoint: a Stable Diffusion folder, or "demo". steps, learning_rate: of AdamW, one clip a
    step. precision: of Lightning's trainer. sample_every: steps between clips that are generated
    from noise to see how it goes; 0 makes none. save_every: steps after which a killed run starts
    again.
    """

    out: Path
    prompt: str
    checkpoint: str = "demo"
    steps: int = 500
    learning_rate: float = 3e-5
    precision: str = "32-true"
    accelerator: str = "auto"
    sample_every: int = 100
    save_every: int = 50
    seed: int = 0


class OneShotTuning(L.LightningModule):
    """The denoising loss of one clip.

    latents `(1, C, F, h, w)`, text `(1, N, E)`. Each step draws its timestep and noise by its own
    number, so that a resumed run sees what an undisturbed one sees; a batch only counts.
    """

    def __init__(
        self, editor: InflatedEditor, latents: Tensor, text: Tensor, request: TuningRequest
    ) -> None:
        super().__init__()
        self.unet, self.editor, self.request = editor.unet, editor, request
        self.register_buffer("latents", latents, persistent=False)
        self.register_buffer("text", text, persistent=False)
        self.scheduler = DDPMScheduler.from_config(editor.scheduler_config)
        for name, parameter in self.unet.named_parameters():
            parameter.requires_grad_(any(f"{part}." in name for part in TRAINED))

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.unet.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=self.request.learning_rate, weight_decay=1e-2)

    def on_fit_start(self) -> None:
        self.unet.enable_gradient_checkpointing()  # type: ignore[operator]
        self.unet.train()

    def training_step(self, batch: int, index: int) -> Tensor:
        loss = self.loss(self.request.seed * 1_000_003 + self.global_step)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(
                f"the loss is not finite at step {self.global_step}; tune slower, or in 32-true"
            )
        self.log("loss", loss, prog_bar=True)
        return loss

    def loss(self, seed: int) -> Tensor:
        """The denoising error at the timestep and with the noise of a seed."""
        generator = torch.Generator().manual_seed(seed)
        latents: Tensor = self.latents  # type: ignore[assignment]
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        total = self.scheduler.config.num_train_timesteps
        timestep = torch.randint(total, (1,), generator=generator).to(latents.device)
        noisy = self.scheduler.add_noise(latents, noise, timestep)
        predicted = self.editor.predict(noisy, int(timestep), self.text).float()  # type: ignore[arg-type]
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(latents, noise, timestep) if velocity else noise
        return F.mse_loss(predicted, target)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Only what is trained is kept."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: x for name, x in state.items() if name in trained}

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        """What is not in a checkpoint is as it was loaded."""
        return super().load_state_dict(state, strict=False, assign=assign)


class Samples(Callback):
    """Generates the prompt every so often, and hands the clip over."""

    def __init__(self, prompt: str, video: Video, every: int, keep: Callable[[str, Video], None]):
        self.prompt, self.video, self.every, self.keep = prompt, video, every, keep

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        step = trainer.global_step
        if not self.every or step % self.every or not isinstance(pl_module, OneShotTuning):
            return
        pl_module.unet.eval()
        clip = generate(
            pl_module.editor,
            self.prompt,
            frames=self.video.num_frames,
            size=self.video.size,
            fps=self.video.fps,
        )
        pl_module.unet.train()
        self.keep(f"step-{step:05d}.gif", clip)


def tune(video: Video, request: TuningRequest) -> Path:
    """Tune on a clip and write the folder; a run that was killed goes on from its last checkpoint.

    Raises `InputError` for a prompt, a checkpoint or a folder that will not do, before training.
    """
    if not request.prompt.strip():
        raise InputError("the prompt is empty; describe the clip in a few words")
    check_writable(request.out, [*checkpoints.PARTS, "model_index.json", "samples"])
    editor = load_editor(
        "tune_a_video", checkpoint=request.checkpoint, device="cpu", dtype="float32"
    )
    assert isinstance(editor, InflatedEditor)
    check_prompt(editor.tokenizer, request.prompt, role="source")
    latents, text = editor.encode(video), editor.encode_text([request.prompt])
    identity = {
        "clip": float(latents.double().sum()),
        "prompt": request.prompt,
        "checkpoint": editor.fingerprint(),
        "schedule": [request.learning_rate, request.seed, request.precision],
    }
    parts = ResumableFolder(request.out.with_name(f"{request.out.name}.parts"), identity)
    module = OneShotTuning(editor, latents, text, request)
    last = parts.path("last.ckpt")
    trainer = L.Trainer(
        accelerator=request.accelerator,
        devices=1,
        precision=request.precision,  # type: ignore[arg-type]
        max_steps=request.steps,
        gradient_clip_val=1.0,
        logger=False,
        enable_model_summary=False,
        callbacks=[
            ModelCheckpoint(
                parts.folder,
                filename="last",
                every_n_train_steps=request.save_every,
                enable_version_counter=False,
            ),
            Samples(
                request.prompt,
                video,
                request.sample_every,
                lambda name, clip: write_video(clip, parts.path(name)),
            ),
            TQDMProgressBar(),
        ],
    )
    steps: Any = DataLoader(range(request.steps), batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, steps, ckpt_path=last if last.exists() else None)
    save_tuned(editor, checkpoints.resolve(editor.checkpoint), request.out, parts)
    parts.remove()
    return request.out


def save_tuned(editor: InflatedEditor, source: Path, out: Path, parts: ResumableFolder) -> None:
    """Write a checkpoint folder in Tune-A-Video's layout, whole or not at all.

    source: the folder whose other parts are taken over.
    """
    aside = parts.path("folder")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for part in checkpoints.PARTS:
        if part != "unet":
            shutil.copytree(source / part, aside / part)
    if (source / CODEBOOK).exists():  # of the untuned backbone, whose cross-attention sites it has
        shutil.copy(source / CODEBOOK, aside / CODEBOOK)
    config = json.loads((source / "unet" / "config.json").read_text())
    config["_class_name"] = TUNED[0]
    for key in ("down_block_types", "up_block_types"):
        config[key] = [block.replace("2D", "3D") for block in config[key]]
    if config.get("mid_block_type"):
        config["mid_block_type"] = config["mid_block_type"].replace("2D", "3D")
    (aside / "unet").mkdir()
    (aside / "unet" / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: x.detach().cpu() for name, x in editor.unet.state_dict().items()}
    torch.save(state, aside / "unet" / WEIGHTS)
    index = {"_class_name": "TuneAVideoPipeline"}
    (aside / "model_index.json").write_text(json.dumps(index) + "\n")
    for sample in sorted(parts.folder.glob("step-*.gif")):
        (aside / "samples").mkdir(exist_ok=True)
        shutil.copy(sample, aside / "samples" / sample.name)
    if out.exists():
        shutil.rmtree(out)
    aside.replace(out)
