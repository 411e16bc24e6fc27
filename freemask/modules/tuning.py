"""Tunes a UNet on one clip, as in Tune-A-Video (Wu et al. 2023, arXiv 2212.11565).

The query projections of self and cross attention and all temporal attention learn to predict the
noise in the clip's latents under its prompt. The tuned checkpoint has the original layout.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from freemask.editors import checkpoints
from freemask.editors.inflated import InflatedEditor
from freemask.editors.registry import load_editor
from freemask.editors.tuned import TUNED
from freemask.io.atomic import check_writable, move_into_place
from freemask.io.fingerprint import fingerprint
from freemask.io.resumable import ResumableFolder
from freemask.io.video import write_video
from freemask.modules.interrupts import keyboard_interrupts
from freemask.modules.quiet import quieten_lightning
from freemask.modules.tuning_request import TuningRequest
from freemask.progress import no_progress
from freemask.prompts.tokens import check_prompt
from freemask.sampling.generation import generate
from freemask.types import InputError, Progress, Video

TRAINED = ("attn1.to_q", "attn2.to_q", "attn_temp")
WEIGHTS = "diffusion_pytorch_model.bin"  # the name in the original layout


class OneShotTuning(L.LightningModule):
    """The denoising loss of one clip.

    editor: the editor whose UNet is trained.
    latents: latents of the clip, `(1, C, F, h, w)`.
    text: hidden states of its prompt, `(1, N, E)`.
    request: the request, for the learning rate and the seed.

    The number of a step seeds its timestep and noise, so a resumed run draws the same ones as an
    uninterrupted run. A batch is nothing but a number.
    """

    def __init__(
        self, editor: InflatedEditor, latents: Tensor, text: Tensor, request: TuningRequest
    ) -> None:
        super().__init__()
        self.unet, self.editor, self.request = editor.backbone, editor, request
        self.register_buffer("latents", latents, persistent=False)
        self.register_buffer("text", text, persistent=False)
        self.scheduler = DDPMScheduler.from_config(editor.scheduler_config)
        for name, parameter in self.unet.named_parameters():
            parameter.requires_grad_(any(f"{part}." in name for part in TRAINED))

    def configure_optimizers(self) -> Any:
        """Returns AdamW for the trained parameters."""
        trained = [p for p in self.unet.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=self.request.learning_rate, weight_decay=1e-2)

    def on_fit_start(self) -> None:
        """Switches gradient checkpointing on, which saves memory."""
        self.unet.enable_gradient_checkpointing()  # type: ignore[operator]
        self.unet.train()

    def training_step(self, batch: int, index: int) -> Tensor:
        """Returns the loss of a step. Raises `FloatingPointError` if it is not finite."""
        loss = self.loss(self.request.seed * 1_000_003 + self.global_step)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(
                f"the loss is not finite at step {self.global_step}; lower the learning rate, or "
                "use precision 32-true"
            )
        self.log("loss", loss, prog_bar=True)
        return loss

    def loss(self, seed: int) -> Tensor:
        """Returns the mean squared error at the timestep and with the noise of a seed."""
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
        """Keeps only the trained weights."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: x for name, x in state.items() if name in trained}

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        """Loads non-strictly; frozen weights are not saved."""
        return super().load_state_dict(state, strict=False, assign=assign)


class Samples(Callback):
    """Generates clips from noise during training, to show its progress.

    prompt: the prompt of the clips.
    video: the clip that is learnt, for length, size and fps.
    every: steps between two clips; 0 generates none.
    folder: where the clips are written, as `step-NUMBER.gif`.
    """

    def __init__(self, prompt: str, video: Video, every: int, folder: Path) -> None:
        self.prompt, self.video, self.every, self.folder = prompt, video, every, folder

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Generates a clip if the step is due."""
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
        write_video(clip, self.folder / f"step-{step:05d}.gif")


class StepReport(Callback):
    """Reports the steps of a training run.

    progress: called with the stage, the steps done and the steps in all.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Reports a step."""
        self.progress("tune", trainer.global_step, int(trainer.max_steps))


def tune(video: Video, request: TuningRequest, progress: Progress = no_progress) -> Path:
    """Tunes on a clip and writes the checkpoint folder.

    progress: called with the stage, the steps done and the steps in all.

    A run that was interrupted continues from its last checkpoint.

    Returns the folder.

    Raises `InputError` for a prompt, a checkpoint or a folder that cannot be used, before training;
    `FloatingPointError` if the loss stops being finite.
    """
    if not request.prompt.strip():
        raise InputError("the prompt is empty; describe the clip in a few words")
    check_writable(request.out, [*checkpoints.PARTS, "model_index.json", "samples"])
    editor = load_editor(
        "tune_a_video",
        checkpoint=request.checkpoint,
        device="cpu",
        dtype="float32",
        revision=request.revision,
        variant=request.variant,
    )
    wanted = checkpoints.Wanted(revision=request.revision, variant=request.variant)
    source = checkpoints.resolve(editor.checkpoint, wanted)
    if source.is_file():
        raise InputError(f"{source} is a single file; tuning needs a folder in diffusers' layout")
    assert isinstance(editor, InflatedEditor)
    check_prompt(editor.tokenizer, request.prompt, role="source")
    latents, text = editor.encode(video), editor.encode_text([request.prompt])
    work = fingerprint(
        video.frames,
        request.prompt,
        editor.fingerprint(),
        [request.learning_rate, request.seed, request.precision],
    )
    parts = ResumableFolder(request.parts_folder, work)
    module = OneShotTuning(editor, latents, text, request)
    last = parts.path("last.ckpt")
    steps: Any = DataLoader(range(request.steps), batch_size=None)  # type: ignore[arg-type]
    trainer = _make_trainer(request, video, parts.folder, progress)
    with keyboard_interrupts():
        trainer.fit(module, steps, ckpt_path=last if last.exists() else None)
    save_tuned(editor, source, request.out, parts)
    parts.remove()
    return request.out


def _make_trainer(
    request: TuningRequest, video: Video, folder: Path, progress: Progress
) -> L.Trainer:
    quieten_lightning()
    checkpoint = ModelCheckpoint(
        folder,
        filename="last",
        every_n_train_steps=request.save_every,
        enable_version_counter=False,
    )
    samples = Samples(request.prompt, video, request.sample_every, folder)
    return L.Trainer(
        accelerator=request.accelerator,
        devices=1,
        precision=request.precision,  # type: ignore[arg-type]
        max_steps=request.steps,
        gradient_clip_val=1.0,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[checkpoint, samples, StepReport(progress)],
    )


def save_tuned(editor: InflatedEditor, source: Path, out: Path, parts: ResumableFolder) -> None:
    """Writes a checkpoint folder in Tune-A-Video's layout, complete or not at all.

    editor: the editor with the tuned UNet.
    source: the untuned checkpoint; everything except the UNet is copied from it.
    out: the folder to write.
    parts: the folder of the run; its samples are copied.
    """
    aside = parts.path("folder")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for part in checkpoints.PARTS:
        if part != "unet" and (source / part).is_dir():
            shutil.copytree(source / part, aside / part)
    if (source / checkpoints.CODEBOOK).exists():  # tuning keeps the cross-attention sites
        shutil.copy(source / checkpoints.CODEBOOK, aside / checkpoints.CODEBOOK)
    config = json.loads((source / "unet" / "config.json").read_text())
    config["_class_name"] = TUNED[0]
    for key in ("down_block_types", "up_block_types"):
        config[key] = [block.replace("2D", "3D") for block in config[key]]
    if config.get("mid_block_type"):
        config["mid_block_type"] = config["mid_block_type"].replace("2D", "3D")
    (aside / "unet").mkdir()
    (aside / "unet" / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: x.detach().cpu() for name, x in editor.backbone.state_dict().items()}
    torch.save(state, aside / "unet" / WEIGHTS)
    index = {"_class_name": "TuneAVideoPipeline"}
    (aside / "model_index.json").write_text(json.dumps(index) + "\n")
    for sample in sorted(parts.folder.glob("step-*.gif")):
        (aside / "samples").mkdir(exist_ok=True)
        shutil.copy(sample, aside / "samples" / sample.name)
    move_into_place(aside, out)
