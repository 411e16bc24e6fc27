"""Tiny checkpoints of SAM 3 and SAM 2 for videos, with random weights.

Their thresholds are so low that random weights find objects.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Sam2VideoConfig, Sam2VideoModel
from word_tokenizer import make_tokenizer

SIDE, PATCH, WORDS = 64, 16, 8
WIDTH, MEMORY = 128, 64  # the memory attention takes 64 channels and splits wider pointers
GRID = SIDE // PATCH
LEVELS = [[4 * GRID] * 2, [2 * GRID] * 2, [GRID] * 2]
TRACKER: dict[str, Any] = {
    "mask_decoder_config": {
        "hidden_size": WIDTH,
        "mlp_dim": WIDTH,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": WIDTH,
    },
    "prompt_encoder_config": {
        "hidden_size": WIDTH,
        "image_size": SIDE,
        "patch_size": PATCH,
        "mask_input_channels": 4,
    },
    "num_maskmem": 2,
    "max_object_pointers_in_encoder": 3,
    "memory_attention_hidden_size": WIDTH,
    "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": WIDTH,
    "memory_attention_rope_feat_sizes": [GRID, GRID],
    "memory_encoder_hidden_size": WIDTH,
    "memory_encoder_output_channels": MEMORY,
    "mask_downsampler_embed_dim": WIDTH,
    "memory_fuser_embed_dim": WIDTH,
    "memory_fuser_intermediate_dim": WIDTH,
    "memory_fuser_kernel_size": 3,
    "memory_fuser_padding": 1,
    "image_size": SIDE,
}
VISION: dict[str, Any] = {
    "backbone_config": {
        "model_type": "sam3_vit_model",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        "pretrain_image_size": SIDE // 2,
        "window_size": 2,
        "global_attn_indexes": [1],
    },
    "fpn_hidden_size": WIDTH,
    "backbone_feature_sizes": LEVELS,
}
BLOCKS = {"hidden_size": WIDTH, "num_attention_heads": 2}
LAYERS = {**BLOCKS, "num_layers": 1, "intermediate_size": WIDTH}


def write_sam3(folder: Path, **changes: Any) -> Path:
    """Writes a SAM 3 checkpoint with a tokenizer, and returns its folder.

    changes: to its config.

    Skips the test if transformers has no SAM 3.
    """
    pytest.importorskip("transformers", "5.0")
    from transformers import Sam3VideoConfig, Sam3VideoModel

    tokenizer = make_tokenizer(WORDS)
    detector = {
        "vision_config": VISION,
        "text_config": {
            **BLOCKS,
            "vocab_size": len(tokenizer),
            "intermediate_size": WIDTH,
            "projection_dim": WIDTH,
            "num_hidden_layers": 1,
            "max_position_embeddings": WORDS,
            "hidden_act": "gelu",
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "geometry_encoder_config": LAYERS,
        "detr_encoder_config": LAYERS,
        "detr_decoder_config": {**LAYERS, "num_queries": 2},
        "mask_decoder_config": {**BLOCKS, "num_upsampling_stages": 3},
    }
    settings = {
        "low_res_mask_size": 4 * GRID,
        "score_threshold_detection": 0.2,
        "new_det_thresh": 0.2,
        "hotstart_delay": 3,
        "hotstart_unmatch_thresh": 2,
        "hotstart_dup_thresh": 2,
    }
    config = Sam3VideoConfig(
        detector_config={"model_type": "sam3", **detector},
        tracker_config={"model_type": "sam3_tracker_video", "vision_config": VISION, **TRACKER},
        **(settings | changes),
    )
    _randomised(Sam3VideoModel(config), seed=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_sam2(folder: Path, **changes: Any) -> Path:
    """Writes a SAM 2 checkpoint and returns its folder.

    changes: to its config.
    """
    widths = [8, 16, 32, 64]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": widths[0],
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [2, 2, 2, 2],
        "window_positional_embedding_background_size": [2, 2],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": widths[::-1],
        "backbone_feature_sizes": LEVELS,
        "fpn_hidden_size": WIDTH,
    }
    config = Sam2VideoConfig(
        vision_config={"model_type": "sam2_vision_model", **vision}, **(TRACKER | changes)
    )
    _randomised(Sam2VideoModel(config), seed=0).save_pretrained(folder)
    scaling = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling))
    return folder


def _randomised(model: Any, *, seed: int) -> Any:
    """Returns a model with weights that are far enough from 0 to tell words, places and frames."""
    torch.manual_seed(seed)
    for name, values in model.named_parameters():
        if values.ndim > 1 or name.endswith("bias"):
            values.data.normal_(std=0.1)
    return model
