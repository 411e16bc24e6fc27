"""Edits with Wan 2.1 and 2.2 (arXiv 2503.20314): text-to-video checkpoints in diffusers' layout.

The backbone is a transformer over all tokens of a clip, or two of them (Wan 2.2 A14B), of which the
noise level chooses one. The VAE is causal: its first latent frame covers one frame, every other
one four. Text is UMT5's, 512 tokens, zero after the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from freemask.attention.hooks import Attend, Processor, plain
from freemask.attention.lanes import Lane
from freemask.attention.ranks import Exchange, Ranks
from freemask.editors.checkpoints import Checkpoint, Layout
from freemask.editors.editor import Editor
from freemask.editors.flow_schedule import (
    FAMILY,
    FlowSchedule,
    checked_flow_config,
    make_flow_schedule,
)
from freemask.editors.latent_time import LatentTime
from freemask.editors.native_size import NativeFrame
from freemask.editors.wan_attention import (
    WanProcessor,
    find_wan_sites,
    middle_site,
    project_context,
    project_queries,
    text_projection,
)
from freemask.editors.wan_checkpoints import (
    TRANSFORMER,
    WanBackbone,
    check_text_to_video,
    load_umt5,
    read_index,
    read_json,
)
from freemask.editors.wan_options import WanOptions
from freemask.editors.wan_rows import predict_lanes
from freemask.editors.wan_vae import WanVae
from freemask.prompts.cleaning import clean
from freemask.types import InputError, Site, Video

TEXT_TOKENS = 512
NATIVE = {8: (480, 832), 16: (704, 1280), 4: (64, 64)}  # by pixels per latent; 4 is the demo's
BLOCKS_ON_GPU = 2  # with offload=group: one computes while the next one is copied
PROMPTS_KEPT = 16  # whose text states are kept


class Wan(Editor):
    """An editor for `WanTransformer3DModel` checkpoints that generate video from text."""

    name: ClassVar[str] = "wan"
    layout: ClassVar[Layout] = Layout(
        backbone="transformer",
        models=("transformer", "transformer_2", "vae", "text_encoder"),
        optional=("transformer_2", "scheduler"),
    )
    architectures: ClassVar[tuple[str, ...]] = (TRANSFORMER,)
    family: ClassVar[str] = "flow"
    demo: ClassVar[str | None] = "sprites-wan"
    half: ClassVar[torch.dtype] = torch.bfloat16
    sources: ClassVar[tuple[str, ...]] = ("noised", "inverted")
    states: ClassVar[tuple[str, ...]] = ("coupled", "pinned")
    Options: ClassVar[type] = WanOptions
    runs_lanes: ClassVar[bool] = True
    backbone: WanBackbone
    frames_per_pass = 1  # the VAE works through time latent frame by latent frame

    def __init__(self, **parts: Any) -> None:
        """See `Editor`."""
        super().__init__(**parts)
        self.video_vae, self.exchange = WanVae(self.vae), Exchange()
        self._device = self._text_device = torch.device("cpu")
        self._text_states: dict[str, Tensor] = {}
        if self.dtype == torch.float16:
            self.notes += ("Wan can overflow in float16; take dtype=bfloat16",)
        self._embedders = {
            layer: expert.condition_embedder.text_embedder
            for expert in self.backbone.experts
            for layer in (block.attn2 for block in expert.blocks)
        }

    @classmethod
    def reader(cls, path: Path, dtype: torch.dtype, variant: str | None = None) -> Checkpoint:
        """See `CheckpointFormat.reader`."""
        if path.is_file():
            raise InputError(
                f"{path} is a single file; editor wan reads folders in diffusers' layout, such as "
                "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
            )
        return Checkpoint(path, dtype, variant, cls.layout)

    @classmethod
    def check_configs(cls, files: Checkpoint) -> None:
        """See `CheckpointFormat.check_configs`."""
        check_text_to_video(files)

    @classmethod
    def native_frame(cls, files: Checkpoint, name: str) -> NativeFrame:
        """See `CheckpointFormat.native_frame`."""
        factor = int(files.config("vae").get("scale_factor_spatial", 8))
        if factor not in NATIVE:
            raise InputError(f"the VAE of {name} has {factor} pixels per latent; give a frame size")
        return NativeFrame(NATIVE[factor], cls.frame_multiple(files))

    @classmethod
    def frame_multiple(cls, files: Checkpoint) -> int:
        """See `CheckpointFormat.frame_multiple`."""
        patch = files.config("transformer").get("patch_size", (1, 2, 2))
        return int(files.config("vae").get("scale_factor_spatial", 8)) * int(patch[-1])

    @classmethod
    def time_of(cls, files: Checkpoint) -> LatentTime:
        """See `CheckpointFormat.time_of`."""
        return LatentTime(int(files.config("vae").get("scale_factor_temporal", 4)))

    @classmethod
    def read_scheduler(cls, files: Checkpoint) -> tuple[Any, tuple[str, ...]]:
        """See `CheckpointFormat.read_scheduler`."""
        folder = files.folder / "scheduler"
        if folder.is_dir():
            path = folder / "scheduler_config.json"
            return checked_flow_config(read_json(path), where=str(folder)), ()
        shift = FAMILY["flow_shift"]
        return FAMILY, (f"{files.folder} has no scheduler folder; flow_shift {shift} is taken",)

    @classmethod
    def make_scheduler(cls, config: Any, steps: int) -> FlowSchedule:
        """See `CheckpointFormat.make_scheduler`."""
        return make_flow_schedule(config, steps)

    def scheduler(self, steps: int) -> FlowSchedule:
        """See `Editor.scheduler`."""
        return make_flow_schedule(self.scheduler_config, steps, shift=self.options.flow_shift)

    @classmethod
    def load_backbone(cls, checkpoint: Checkpoint, options: Any) -> nn.Module:
        """See `CheckpointFormat.load_backbone`."""
        from diffusers import WanTransformer3DModel

        index = read_index(checkpoint)
        low = checkpoint.extra("transformer_2") is not None
        return WanBackbone(
            checkpoint.model(WanTransformer3DModel, "transformer"),
            checkpoint.model(WanTransformer3DModel, "transformer_2") if low else None,
            boundary=index["boundary_ratio"] * FAMILY["num_train_timesteps"],
            timestep_per_token=index["expand_timesteps"],
        )

    @classmethod
    def load_vae(cls, checkpoint: Checkpoint) -> Any:
        """See `CheckpointFormat.load_vae`. It computes in float32."""
        from diffusers import AutoencoderKLWan

        return checkpoint.with_dtype(torch.float32).model(AutoencoderKLWan, "vae")

    @classmethod
    def load_text_encoder(cls, checkpoint: Checkpoint) -> Any:
        """See `CheckpointFormat.load_text_encoder`."""
        return load_umt5(checkpoint)

    @classmethod
    def load_tokenizer(cls, checkpoint: Checkpoint) -> Any:
        """See `CheckpointFormat.load_tokenizer`."""
        from transformers import T5TokenizerFast

        tokenizer = checkpoint.part(T5TokenizerFast, "tokenizer")
        tokenizer.model_max_length = TEXT_TOKENS
        return tokenizer

    @classmethod
    def lora_targets(cls, backbone: Any, text_encoder: Any) -> dict[str, nn.Module]:
        """See `CheckpointFormat.lora_targets`."""
        return dict(zip(("transformer", "transformer_2"), backbone.experts, strict=False))

    def place(self, device: torch.device) -> None:
        """See `CheckpointFormat.place`. On a GPU the text encoder, the largest part of Wan 2.1
        1.3B, waits in host memory and visits the GPU to encode."""
        self._device = self._text_device = device
        self.vae.to(device)
        self.text_encoder.to("cpu" if device.type == "cuda" else device)
        for expert in self.backbone.experts:
            if self.options.offload == "group" and device.type == "cuda":
                expert.enable_group_offload(
                    onload_device=device,
                    offload_device=torch.device("cpu"),
                    offload_type="block_level",
                    num_blocks_per_group=1,
                    use_stream=True,
                )
            else:
                expert.to(device)
            if self.options.compile:
                expert.compile_repeated_blocks()

    def offload(self) -> None:
        """See `Editor.offload`."""
        super().offload()
        self._text_device = torch.device("cpu")

    @property
    def resident(self) -> tuple[nn.Module, ...]:
        """See `Editor.resident`. With offload=group, these are the parts of one transformer that
        are on the GPU at once."""
        if self.options.offload != "group":
            return self.backbone, self.vae
        expert = self.backbone.experts[0]
        others = [part for name, part in expert.named_children() if name != "blocks"]
        return self.vae, *others, *expert.blocks[:BLOCKS_ON_GPU]

    @property
    def device(self) -> torch.device:
        """See `Editor.device`: where the backbone computes."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """See `Editor.dtype`. Norms and time embeddings may be kept in float32."""
        weight: Any = self.backbone.experts[0].patch_embedding.weight
        return weight.dtype

    @property
    def latent_time(self) -> LatentTime:
        """See `Editor.latent_time`."""
        return LatentTime(int(self.vae.config.scale_factor_temporal))

    @property
    def latent_channels(self) -> int:
        """See `Editor.latent_channels`."""
        return int(self.vae.config.z_dim)

    @property
    def pixel_factor(self) -> int:
        """See `Editor.pixel_factor`."""
        return int(self.vae.config.scale_factor_spatial)

    @property
    def size_multiple(self) -> int:
        """See `Editor.size_multiple`."""
        return self.pixel_factor * self.backbone.patch

    @property
    def text_shape(self) -> tuple[int, int]:
        """See `Editor.text_shape`."""
        return TEXT_TOKENS, int(self.text_encoder.config.d_model)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """See `Editor.encode_text`. States beyond a prompt's last token are zero."""
        texts = [clean(prompt) for prompt in prompts]
        new = [text for text in dict.fromkeys(texts) if text not in self._text_states]
        known = {text: self._text_states[text] for text in texts if text not in new}
        if new:
            self.text_encoder.to(self._text_device)
            known |= {text: self._encode_one(text) for text in new}
            if self._text_device.type == "cuda":
                self.text_encoder.to("cpu")
        self._text_states = dict([*self._text_states.items(), *known.items()][-PROMPTS_KEPT:])
        return torch.cat([known[text] for text in texts]).to(self.device)

    def _encode_one(self, text: str) -> Tensor:
        """Returns the states of a clean prompt on the CPU, `(1, N, E)`. Prompts are encoded one by
        one, so that their states do not depend on each other."""
        tokens = self.tokenizer(
            [text],
            padding="max_length",
            max_length=TEXT_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        ids, mask = (tokens[key].to(self._text_device) for key in ("input_ids", "attention_mask"))
        states = self.text_encoder(ids, mask).last_hidden_state
        return (states * mask[..., None].to(states)).cpu()

    @record_function("freemask.vae.encode")
    @torch.no_grad()
    def encode(self, video: Video) -> Tensor:
        """See `Editor.encode`. The last frame is repeated up to a whole latent frame."""
        self.latent_size(video.size)
        return self.video_vae.encode(video.frames, self.latent_time.padded(video.num_frames))

    @record_function("freemask.vae.decode")
    @torch.no_grad()
    def decode(self, latents: Tensor, fps: float, frames: int | None = None) -> Video:
        """See `Editor.decode`."""
        return Video(self.video_vae.decode(latents)[:frames], fps)

    def predict(self, latents: Tensor, timestep: float, text: Tensor) -> Tensor:
        """See `Editor.predict`."""
        if self.ranks.count == 1:
            return self.backbone.predict(latents.to(self.dtype), timestep, text.to(self.dtype))
        sites = self.sites((latents.shape[3], latents.shape[4]))
        lane = Lane.whole(latents, text, sites[0].resolution)
        shared = isinstance(self.layers(sites[0])[0].processor, WanProcessor)
        with nullcontext() if shared else self.hooked(sites, plain):
            return self.predict_lanes([lane], timestep)[0]

    def predict_lanes(self, lanes: Sequence[Lane], timestep: float) -> list[Tensor]:
        """See `Editor.predict_lanes`."""
        lanes = [lane.to(self.dtype) for lane in lanes]
        return predict_lanes(self.backbone, lanes, timestep, self.exchange)

    def share(self, ranks: Ranks) -> None:
        """See `Editor.share`."""
        super().share(ranks)
        self.exchange = Exchange(ranks)

    def sites(self, latent_size: tuple[int, int]) -> tuple[Site, ...]:
        """See `Editor.sites`."""
        (h, w), patch = latent_size, self.backbone.patch
        return find_wan_sites(self.backbone.transformer, (h // patch, w // patch))

    def released_sites(self, sites: Sequence[Site]) -> tuple[Site, ...]:
        """See `Editor.released_sites`."""
        return middle_site(sites)

    def layers(self, site: Site) -> tuple[nn.Module, ...]:
        """See `Editor.layers`."""
        return tuple(expert.get_submodule(site.name) for expert in self.backbone.experts)

    def processor(self, site: Site, layer: nn.Module, attend: Attend) -> Processor:
        """See `Editor.processor`."""
        embedder = self._embedders.get(layer, nn.Identity())
        exchange = self.exchange if self.ranks.count > 1 else None
        return WanProcessor(site, layer, attend, text_projection(layer, embedder), exchange)

    def project(self, layer: nn.Module, hidden: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        """See `Editor.project`."""
        embedded = self._embedders[layer](text)
        return project_queries(layer, hidden), *project_context(layer, embedded)
