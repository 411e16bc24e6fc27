"""Trains the demo checkpoints on sprites: the losses of the VAE, of CLIP and of the UNets.

Each module receives its network and knows only its loss. `tools/sprites` holds the stages, the data
and the files.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor, nn

Batch = dict[str, Tensor]


class TrainingModule(L.LightningModule):
    """AdamW with linear warm-up and cosine decay to zero.

    learning_rate: the highest learning rate.
    total_steps: number of optimiser steps, warm-up included.
    warmup: number of steps of the warm-up.
    weight_decay: weight decay of AdamW.
    """

    def __init__(
        self,
        *,
        learning_rate: float,
        total_steps: int,
        warmup: int = 200,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.schedule = (learning_rate, total_steps, warmup, weight_decay)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips gradients to norm 1; Lightning's own clipping refuses the fused AdamW."""
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)

    def configure_optimizers(self) -> Any:
        """Returns the optimiser and its learning-rate schedule."""
        rate, total, warmup, decay = self.schedule
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=decay, fused=True)
        ramp = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=warmup)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - warmup))
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [ramp, fall], [warmup])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class AutoencoderTraining(TrainingModule):
    """Mean squared reconstruction error and a KL term.

    vae: the network.
    kl_weight: weight of the KL term.

    A batch holds `pixels (B, 3, H, W)` in [-1, 1].
    """

    def __init__(self, vae: AutoencoderKL, *, kl_weight: float = 1e-8, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.vae, self.kl_weight = vae, kl_weight

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Returns the loss of a batch."""
        pixels = batch["pixels"]
        posterior = self.vae.encode(pixels).latent_dist
        error = self.vae.decode(posterior.sample()).sample.float() - pixels
        loss = error.square().mean() + self.kl_weight * posterior.kl().mean()
        self.log("psnr", 10 * torch.log10(4 / error.square().mean()), prog_bar=True)
        return loss


class ClipTraining(TrainingModule):
    """The contrastive loss of CLIP over a batch (arXiv 2103.00020).

    clip: the network.

    A batch holds `pixels (B, 3, H, W)`, normalised as by the image processor, and `tokens (B, N)`.
    """

    def __init__(self, clip: nn.Module, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.clip = clip

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Returns the loss of a batch."""
        logits = self.clip(
            input_ids=batch["tokens"], pixel_values=batch["pixels"]
        ).logits_per_text.float()
        pairs = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        self.log("loss", loss, prog_bar=True)
        self.log("retrieval", (logits.argmax(1) == pairs).float().mean(), prog_bar=True)
        return loss


class DenoiserTraining(TrainingModule):
    """The denoising loss, of noise or velocity prediction.

    Most timesteps are drawn as `sigmoid(N(centre, 1))` of the schedule (logit-normal, as in arXiv
    2403.03206), at the noise levels that decide shapes and textures. The centre lies a little above
    the middle, towards the levels that decide places and motions.

    unet: the network.
    scheduler: the noise schedule.
    uniform: fraction of the timesteps that is drawn uniformly instead, in [0, 1].
    centre: centre of the others before the sigmoid.
    compiled: whether `torch.compile` compiles the network, which makes an image model 1.7 times as
        fast on a CPU. A compiled `UNet3DConditionModel` gives NaN in bfloat16 (torch 2.13).

    A batch holds `latents (B, C, h, w)` or `(B, C, F, h, w)`, and hidden states `text (B, N, E)`;
    the data set drops captions.
    """

    def __init__(
        self,
        unet: nn.Module,
        scheduler: DDPMScheduler,
        *,
        uniform: float = 0.2,
        centre: float = 0.3,
        compiled: bool = False,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.unet, self.scheduler = unet, scheduler
        self.uniform, self.centre = uniform, centre
        self.compiled = compiled

    def on_fit_start(self) -> None:
        """Compiles the network, if asked to."""
        if self.compiled:
            self.unet.compile(dynamic=False)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Returns the loss of a batch."""
        latents, noise = batch["latents"], torch.randn_like(batch["latents"])
        steps = self.draw_timesteps(len(latents)).to(latents.device)
        noisy = self.scheduler.add_noise(latents, noise, steps)
        predicted = self.unet(noisy, steps, batch["text"], return_dict=False)[0].float()
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(latents, noise, steps) if velocity else noise
        loss = F.mse_loss(predicted, target)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(
                "the loss is not finite; train without compiling, or lower the learning rate"
            )
        self.log("loss", loss, prog_bar=True)
        return loss

    def draw_timesteps(self, count: int) -> Tensor:
        """Draws timesteps `(count,)` of the scheduler."""
        total = self.scheduler.config.num_train_timesteps
        times = torch.sigmoid(torch.randn(count) + self.centre)
        times = torch.where(torch.rand(count) < self.uniform, torch.rand(count), times)
        return (times * total).long().clamp(max=total - 1)
