"""Trains the demo checkpoints on sprites: the losses of the VAEs, of CLIP, UNets and transformer.

Each module receives its network and knows only its loss. `tools/sprites` holds the stages, the data
and the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor, nn

from freemask.modules.muon import MuonWithAdamW

Batch = dict[str, Tensor]
HELD_OUT_EVERY = 100  # steps between two measurements on held-out clips


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
        optimizer = self.make_optimizer(rate, decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, warmup, total)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def make_optimizer(self, rate: float, decay: float) -> torch.optim.Optimizer:
        """Returns the optimiser of all trained weights."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=rate, weight_decay=decay, fused=True)


def learning_rate_factor(step: int, warmup: int, total: int) -> float:
    """Returns the share of the highest learning rate at a step, in [0, 1].

    It depends on nothing else, so a resumed training may have another number of steps.

    warmup: steps of the linear rise, which starts at 0.01.
    total: steps of the training; the cosine decay ends there at 0.
    """
    if step < warmup:
        return 0.01 + 0.99 * step / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return (1 + math.cos(math.pi * done)) / 2


class AutoencoderTraining(TrainingModule):
    """Mean squared reconstruction error and a KL term.

    vae: the network.
    kl_weight: weight of the KL term.

    A batch holds `pixels (B, 3, H, W)`, or `(B, 3, F, H, W)` for a video VAE, in [-1, 1].
    """

    def __init__(self, vae: nn.Module, *, kl_weight: float = 1e-8, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.vae, self.kl_weight = vae, kl_weight

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Returns the loss of a batch."""
        pixels = batch["pixels"]
        vae: Any = self.vae
        posterior = vae.encode(pixels).latent_dist
        error = vae.decode(posterior.sample()).sample.float() - pixels
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


class FlowTraining(TrainingModule):
    """The loss of rectified flow (arXiv 2209.03003), of a transformer and its text encoder.

        x_s = (1 - s) x0 + s e        loss = (v(x_s, 1000 s) - (e - x0))^2

    Most levels s are drawn as `sigmoid(N(centre, 1))`, as in `DenoiserTraining`.

    transformer: a `WanTransformer3DModel` whose attention processors take `text_bias`.
    text_encoder: trained with it.
    text_bias: receives the bias `(B, 1, 1, N)` on the attention to text tokens before each call.
    held_out: a batch on which the loss is logged.
    uniform, centre: as in `DenoiserTraining`.
    muon: whether Muon updates the matrices of the transformer's blocks, instead of AdamW.
    compiled: whether `torch.compile` compiles the transformer, once for each length of clips; it is
        then 1.5 times as fast on a CPU.

    A batch holds `latents (B, C, F, h, w)`, `tokens (B, N)` and their `mask (B, N)`, with at least
    one padding token in every row; the data set drops captions.
    """

    def __init__(
        self,
        transformer: nn.Module,
        text_encoder: nn.Module,
        text_bias: Callable[[Tensor], None],
        *,
        held_out: Batch,
        uniform: float = 0.2,
        centre: float = 0.5,
        muon: bool = False,
        compiled: bool = False,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.compiled, self.muon = compiled, muon
        self.transformer, self.text_encoder, self.text_bias = transformer, text_encoder, text_bias
        self.held_out, self.uniform, self.centre = held_out, uniform, centre

    def make_optimizer(self, rate: float, decay: float) -> torch.optim.Optimizer:
        """Returns AdamW, or Muon for the matrices of the blocks and AdamW for the rest."""
        if not self.muon:
            return super().make_optimizer(rate, decay)
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        hidden = [p for name, p in named if ".blocks." in name and p.ndim == 2]
        return MuonWithAdamW(
            hidden, [p for _, p in named if all(p is not h for h in hidden)], rate, decay
        )

    def on_fit_start(self) -> None:
        """Gives every process noise of its own, and compiles the transformer if asked to."""
        torch.manual_seed(torch.seed() + self.global_rank)
        if self.compiled:
            torch._dynamo.config.recompile_limit = 64  # one graph for each shape of a batch
            self.transformer.compile(dynamic=False)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Returns the loss of a batch."""
        count = len(batch["latents"])
        levels = torch.sigmoid(torch.randn(count) + self.centre)
        levels = torch.where(torch.rand(count) < self.uniform, torch.rand(count), levels)
        loss = self.loss(batch, levels, torch.randn_like(batch["latents"]))
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError("the loss is not finite; lower the learning rate")
        self.log("loss", loss, prog_bar=True)
        if self.global_step % HELD_OUT_EVERY == 0:
            self.log("held out", self.held_out_loss(), prog_bar=True)
        return loss

    def loss(self, batch: Batch, levels: Tensor, noise: Tensor) -> Tensor:
        """Returns the mean squared error of the velocity.

        levels: `(B,)` in [0, 1].
        noise: of the shape of the latents.
        """
        clean, level = batch["latents"], levels.view(-1, 1, 1, 1, 1)
        states = self.text_encoder(batch["tokens"], batch["mask"]).last_hidden_state
        self.text_bias(padding_bias(batch["mask"]))
        predicted = self.transformer(
            torch.lerp(clean, noise, level),
            levels * 1000,
            states * batch["mask"][..., None],
            return_dict=False,
        )[0]
        return F.mse_loss(predicted.float(), noise - clean)

    @torch.no_grad()
    def held_out_loss(self) -> Tensor:
        """Returns the loss of the held-out batch at fixed levels with fixed noise."""
        latents = self.held_out["latents"]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        levels = torch.linspace(0.1, 0.9, len(latents))
        return self.loss(self.held_out, levels, noise)


def padding_bias(mask: Tensor, length: int = 512) -> Tensor:
    """Returns the bias on text tokens that makes few padding tokens count as all of them.

    Padding states are zero, so all of them have one key and one value. The first stands for all
    `length - n` that follow a prompt of n tokens; the others do not count.

    mask: `(B, N)`, 1 on the tokens of a prompt, with at least one 0 in every row.
    length: number of tokens of the whole text.

    The result is `(B, 1, 1, N)`, to be added to scores.
    """
    used = mask.sum(1, keepdim=True)
    places = torch.arange(mask.shape[1], device=mask.device)
    bias = torch.where(places < used, 0.0, float("-inf"))
    return torch.where(places == used, (length - used).float().log(), bias)[:, None, None]
