"""Defines the networks of `sprites-wan`: the architecture of Wan 2.1, small.

Every part has the class and the folder layout of `Wan-AI/Wan2.1-T2V-1.3B-Diffusers`, so that
`WanPipeline.from_pretrained` loads it.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from einops import rearrange
from torch import Tensor, nn
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

from freemask.editors.wan_attention import project_context, project_queries
from tools.sprites.tokenizer import EXTRA_WORDS

TEXT_WIDTH = 128
LATENT_CHANNELS = 12
VAE_CONFIG: dict[str, Any] = {
    "base_dim": 24,
    "z_dim": LATENT_CHANNELS,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],  # the spelling of diffusers
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 4,
    "latents_mean": [0.0] * LATENT_CHANNELS,
    "latents_std": [1.0] * LATENT_CHANNELS,
}
TRANSFORMER_CONFIG: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 4,
    "attention_head_dim": 64,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 256,
    "ffn_dim": 768,
    "num_layers": 8,
    "rope_max_seq_len": 256,
}
TEXT_CONFIG: dict[str, Any] = {
    "d_model": TEXT_WIDTH,
    "d_kv": 32,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.0,
}
SCHEDULER_CONFIG: dict[str, Any] = {  # as in Wan 2.1 at 480p
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
}
MODEL_INDEX = {
    "_class_name": "WanPipeline",
    "_diffusers_version": "0.35.0",
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
SPECIAL = ("<pad>", "</s>", "<unk>")
WORD, LETTER, UNKNOWN = -5.0, -15.0, -20.0  # log probabilities: a known word beats its letters


def build_wan_tokenizer(captions: Iterable[str]) -> T5TokenizerFast:
    """Builds a unigram tokenizer for which a known word, with the space before it, is one token."""
    words = sorted({word for caption in captions for word in caption.split()} | set(EXTRA_WORDS))
    vocabulary = [(token, 0.0) for token in SPECIAL[:2]] + [(SPECIAL[2], UNKNOWN)]
    vocabulary += [(f"▁{word}", WORD) for word in words]
    vocabulary += [(letter, LETTER) for letter in ("▁", *string.printable.strip())]
    known = dict.fromkeys(token for token, _ in vocabulary)
    assert len(known) == len(vocabulary)
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=512)


def make_text_encoder(tokenizer: T5TokenizerFast) -> UMT5EncoderModel:
    """Builds the text encoder of a tokenizer, with random weights."""
    return UMT5EncoderModel(UMT5Config(vocab_size=len(tokenizer), **TEXT_CONFIG))


def make_transformer() -> WanTransformer3DModel:
    """Builds the transformer with random weights; at the start every block adds little."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(**TRANSFORMER_CONFIG)
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return transformer


class ShortTextAttention:
    """An attention processor of `WanAttention` that adds a bias to the scores of text tokens.

    bias: `(B, 1, 1, N)`; set it before each call of the transformer.
    """

    def __init__(self) -> None:
        self.bias: Tensor | None = None

    def set_bias(self, bias: Tensor) -> None:
        """Sets the bias."""
        self.bias = bias

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Tensor:
        cross = encoder_hidden_states is not None
        context = encoder_hidden_states if encoder_hidden_states is not None else hidden_states
        q = project_queries(attn, hidden_states, rotary_emb)
        k, v = project_context(attn, context, rotary_emb)
        out = short_attention(q, k.type_as(v), v, self.bias if cross else None)
        projected: Tensor = attn.to_out[0](rearrange(out, "b heads n d -> b n (heads d)"))
        return projected


def short_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Returns the attention `(B, H, N, D)` of short sequences from their maps.

    bias: `(B, 1, 1, Nk)`, added to the scores, or None.

    Compiled on a CPU in bfloat16, it takes half the time of PyTorch's fused attention, or less. The
    softmax is written out, because the compiler would replace one by that.
    """
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    scores = scores if bias is None else scores + bias
    weights = torch.exp(scores - scores.amax(-1, keepdim=True).detach())
    mixed = (weights.to(v.dtype) @ v).float()
    return (mixed / weights.sum(-1, keepdim=True)).to(v.dtype)


def make_vae(log_variance: float) -> AutoencoderKLWan:
    """Builds the VAE with random weights, in the memory layout that is fast on a CPU.

    It starts as an image VAE that represents a latent frame by the last frame that it covers.

    log_variance: of the posterior at the start.
    """
    torch.manual_seed(0)
    vae = AutoencoderKLWan(**VAE_CONFIG)
    with torch.no_grad():
        for name, module in vae.named_modules():
            if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
                _look_at_last_frame(module, resamples=name.endswith("time_conv"))
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0
        vae.quant_conv.bias[LATENT_CHANNELS:] = log_variance
    return channels_last(vae)


def _look_at_last_frame(conv: nn.Conv3d, *, resamples: bool) -> None:
    """Makes a causal convolution see its newest frame alone.

    resamples: whether it changes the number of frames; it then copies the frame.
    """
    conv.weight[:, :, :-1] = 0
    if not resamples:
        conv.weight *= conv.kernel_size[0] ** 0.5  # as if the others did not count as inputs
        return
    copies = conv.out_channels // conv.in_channels
    conv.weight[:, :, -1, 0, 0] = torch.eye(conv.in_channels).repeat(copies, 1)
    if conv.bias is not None:
        conv.bias.zero_()


def channels_last(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """Lays out the weights of a VAE's convolutions with the channels last, in place."""
    layouts = {nn.Conv3d: torch.channels_last_3d, nn.Conv2d: torch.channels_last}
    for module in vae.modules():
        for kind, layout in layouts.items():
            if isinstance(module, kind):
                module.weight.data = module.weight.data.contiguous(memory_format=layout)
    return vae
