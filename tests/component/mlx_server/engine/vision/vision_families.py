"""Configuration and processor files of a small model of each family that reads images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import pre_tokenizers

SPECIAL = (
    *("<|im_start|>", "<|im_end|>", "<image>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    *("<|video_pad|>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
    *("[IMG]", "[IMG_BREAK]", "[IMG_END]", "<start_of_image>", "<image_soft_token>", "<end_of_image>"),
    *("<pad>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"),
    *(f"<|img_row_{row}_col_{column}|>" for row in range(1, 4) for column in range(1, 4)),
    *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
)
HIDDEN, HEADS = 64, 2


def vocabulary() -> dict[str, int]:
    """Return the tokens: one of each byte, and the special ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {token: number for number, token in enumerate([*letters, *SPECIAL])}


TOKENS = vocabulary()
VOCABULARY = len(TOKENS)
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def llava() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return configuration, processor files and marker of a LLaVA with a CLIP tower."""
    tower = {
        "model_type": "clip_vision_model", "num_hidden_layers": 2, "hidden_size": 32, "image_size": 32,
        "intermediate_size": 64, "num_attention_heads": 2, "patch_size": 8, "projection_dim": 32,
        "vocab_size": 100,
    }  # fmt: skip
    config = {
        "model_type": "llava", "image_token_index": TOKENS["<image>"], "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default", "vocab_size": VOCABULARY,
        "text_config": {**TEXT, "model_type": "llama"}, "vision_config": tower,
    }  # fmt: skip
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32}, "do_resize": True, "do_center_crop": True,
            "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.3, 0.3, 0.3],
        },
        "processor_config.json": {
            "processor_class": "LlavaProcessor", "patch_size": 8, "image_token": "<image>",
            "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default",
        },
    }  # fmt: skip
    return config, files, "<image>"


def idefics3(kind: str = "idefics3") -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of an Idefics 3, whose large images are split into tiles."""
    tower = {
        "model_type": f"{kind}_vision" if kind == "smolvlm" else kind, "num_hidden_layers": 2,
        "hidden_size": 32, "image_size": 32,
        "intermediate_size": 64, "num_attention_heads": 2, "patch_size": 8, "layer_norm_eps": 1e-6,
    }  # fmt: skip
    config = {
        "model_type": kind, "image_token_id": TOKENS["<image>"], "scale_factor": 2,
        "vocab_size": VOCABULARY, "text_config": {**TEXT, "model_type": "llama"}, "vision_config": tower,
    }  # fmt: skip
    name = "Idefics3" if kind == "idefics3" else "SmolVLM"
    files = {
        "preprocessor_config.json": {
            "image_processor_type": f"{name}ImageProcessor", "size": {"longest_edge": 64},
            "max_image_size": {"longest_edge": 32}, "do_image_splitting": True, "do_pad": True,
            "do_resize": True, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
        "processor_config.json": {"processor_class": f"{name}Processor", "image_seq_len": 4},
    }  # fmt: skip
    return config, files, "<image>"


def smolvlm() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of a SmolVLM."""
    return idefics3("smolvlm")


def qwen2_vl() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of a Qwen2-VL, whose text model has positions in three dimensions."""
    tower = {
        "model_type": "qwen2_vl", "depth": 2, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": 2,
        "patch_size": 8, "mlp_ratio": 2, "in_channels": 3, "spatial_merge_size": 2,
        "spatial_patch_size": 8, "temporal_patch_size": 2,
    }  # fmt: skip
    return _qwen("qwen2_vl", tower, {"type": "mrope", "mrope_section": [4, 6, 6]})


def qwen2_5_vl() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of a Qwen2.5-VL, whose tower attends within windows."""
    tower = {
        "model_type": "qwen2_5_vl", "depth": 2, "hidden_size": 32, "intermediate_size": 64,
        "out_hidden_size": HIDDEN, "num_heads": 2, "patch_size": 8, "in_channels": 3, "in_chans": 3,
        "spatial_merge_size": 2, "spatial_patch_size": 8, "temporal_patch_size": 2, "window_size": 32,
        "fullatt_block_indexes": [1], "tokens_per_second": 2,
    }  # fmt: skip
    return _qwen("qwen2_5_vl", tower, {"type": "mrope", "mrope_section": [4, 6, 6]})


def _qwen(
    kind: str, tower: dict[str, Any], rope: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], str]:
    config = {
        **TEXT, "model_type": kind, "vision_config": tower, "rope_scaling": rope,
        "image_token_id": TOKENS["<|image_pad|>"], "video_token_id": TOKENS["<|video_pad|>"],
        "vision_start_token_id": TOKENS["<|vision_start|>"],
        "vision_end_token_id": TOKENS["<|vision_end|>"],
    }  # fmt: skip
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 8, "merge_size": 2,
            "temporal_patch_size": 2, "min_pixels": 16 * 16, "max_pixels": 96 * 96,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.3, 0.3, 0.3],
        },
    }  # fmt: skip
    return config, files, "<|vision_start|><|image_pad|><|vision_end|>"


def qwen3_vl() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of a Qwen3-VL, which adds features of images behind its first layers."""
    tower = {
        "model_type": "qwen3_vl", "depth": 3, "hidden_size": 32, "intermediate_size": 64,
        "out_hidden_size": HIDDEN, "num_heads": 2, "patch_size": 8, "in_channels": 3,
        "spatial_merge_size": 2, "spatial_patch_size": 8, "temporal_patch_size": 2,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip
    config, files, marker = _qwen("qwen3_vl", tower, {})
    rope = {"type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    text = {**TEXT, "model_type": "qwen3_vl_text", "head_dim": HIDDEN // HEADS, "rope_scaling": rope}
    kept = {name: value for name, value in config.items() if name not in TEXT and name != "rope_scaling"}
    return {**kept, "text_config": text, "vocab_size": VOCABULARY}, files, marker


def qwen3_vl_moe() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of a Qwen3-VL with experts."""
    config, files, marker = qwen3_vl()
    experts = {
        "model_type": "qwen3_vl_moe_text", "num_experts": 4, "num_experts_per_tok": 2,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 64, "norm_topk_prob": True,
    }  # fmt: skip
    kind = {"model_type": "qwen3_vl_moe", "text_config": {**config["text_config"], **experts}}
    tower = {**config["vision_config"], "model_type": "qwen3_vl_moe"}
    return {**config, **kind, "vision_config": tower}, files, marker


def qwen3_5() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of a Qwen3.5, most of whose layers have a state in place of keys and values."""
    config, files, marker = qwen3_vl()
    tower = {**config["vision_config"], "model_type": "qwen3_5", "deepstack_visual_indexes": []}
    rope = {
        "type": "default", "mrope_section": [3, 3, 2], "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
        "mrope_interleaved": True,
    }  # fmt: skip
    text = {
        **TEXT, "model_type": "qwen3_5_text", "head_dim": HIDDEN // HEADS, "rope_parameters": rope,
        "num_hidden_layers": 4, "full_attention_interval": 2, "linear_num_value_heads": 2,
        "linear_num_key_heads": 2, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
    }  # fmt: skip
    return {**config, "model_type": "qwen3_5", "vision_config": tower, "text_config": text}, files, marker


def qwen3_5_moe() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of a Qwen3.5 with experts."""
    config, files, marker = qwen3_5()
    experts = {
        "model_type": "qwen3_5_moe_text", "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64, "decoder_sparse_step": 1,
        "norm_topk_prob": True, "mlp_only_layers": [],
    }  # fmt: skip
    text = {**config["text_config"], **experts}
    tower = {**config["vision_config"], "model_type": "qwen3_5_moe"}
    return {**config, "model_type": "qwen3_5_moe", "vision_config": tower, "text_config": text}, files, marker


def pixtral(kind: str = "pixtral") -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of a Pixtral, which has a token at the end of each row of patches."""
    tower = {
        "model_type": "pixtral", "num_hidden_layers": 2, "hidden_size": 32, "head_dim": 16, "image_size": 64,
        "intermediate_size": 64, "num_attention_heads": 2, "patch_size": 8,
    }  # fmt: skip
    config = {
        "model_type": kind, "image_token_index": TOKENS["[IMG]"], "vision_feature_layer": -1,
        "vocab_size": VOCABULARY, "vision_config": tower, "spatial_merge_size": 2,
        "multimodal_projector_bias": False, "projector_hidden_act": "gelu",
        "text_config": {**TEXT, "model_type": "mistral", "head_dim": HIDDEN // HEADS},
    }  # fmt: skip
    merge = 2 if kind == "mistral3" else 1
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "PixtralImageProcessor", "size": {"longest_edge": 64},
            "patch_size": {"height": 8 * merge, "width": 8 * merge}, "do_resize": True, "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.3, 0.3, 0.3], "do_rescale": True,
        },
        "processor_config.json": {
            "processor_class": "PixtralProcessor", "patch_size": 8, "spatial_merge_size": merge,
            "image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]",
        },
    }  # fmt: skip
    return config, files, "[IMG]"


def mistral3() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of a Mistral 3, which merges the patches of a Pixtral tower."""
    return pixtral("mistral3")


def gemma3() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of a Gemma 3: sliding windows, and images whose tokens see each other."""
    tower = {
        "model_type": "siglip_vision_model", "num_hidden_layers": 2, "hidden_size": 32, "image_size": 32,
        "intermediate_size": 64, "num_attention_heads": 2, "patch_size": 8,
    }  # fmt: skip
    text = {
        **TEXT, "model_type": "gemma3_text", "head_dim": 32, "sliding_window": 512,
        "sliding_window_pattern": 2, "num_hidden_layers": 4, "mm_tokens_per_image": 4,
        "query_pre_attn_scalar": 32, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
    }  # fmt: skip
    config = {
        "model_type": "gemma3", "image_token_index": TOKENS["<image_soft_token>"], "hidden_size": HIDDEN,
        "pad_token_id": TOKENS["<pad>"], "vocab_size": VOCABULARY, "text_config": text,
        "vision_config": tower, "mm_tokens_per_image": 4,
    }  # fmt: skip
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "Gemma3ImageProcessor", "size": {"height": 32, "width": 32},
            "do_resize": True, "do_normalize": True, "do_rescale": True,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "image_seq_length": 4,
        },
        "processor_config.json": {"processor_class": "Gemma3Processor", "image_seq_length": 4},
    }  # fmt: skip
    return config, files, "<start_of_image>"


def lfm2_vl() -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return those of an LFM2-VL, whose text model has convolutions."""
    tower = {
        "model_type": "lfm2_vl", "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
        "num_attention_heads": 2, "patch_size": 8, "num_patches": 16, "image_size": 32,
    }  # fmt: skip
    text = {
        **TEXT, "model_type": "lfm2", "norm_eps": 1e-5, "num_hidden_layers": 4, "block_dim": HIDDEN,
        "block_ff_dim": 128, "block_auto_adjust_ff_dim": False, "conv_dim": HIDDEN, "conv_dim_out": HIDDEN,
        "num_heads": HEADS, "full_attn_idxs": [1, 3], "block_multiple_of": 32, "tie_word_embeddings": True,
        "conv_bias": False, "conv_L_cache": 3, "block_ffn_dim_multiplier": 1.0,
    }  # fmt: skip
    config = {
        "model_type": "lfm2-vl", "image_token_id": TOKENS["<image>"], "text_config": text,
        "image_token_index": TOKENS["<image>"], "vision_config": tower, "downsample_factor": 2,
        "encoder_patch_size": 8, "projector_hidden_size": 48, "vision_feature_layer": -1,
    }  # fmt: skip
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "Siglip2ImageProcessor", "encoder_patch_size": 8, "tile_size": 32,
            "max_image_tokens": 16, "min_image_tokens": 4, "max_num_patches": 64, "downsample_factor": 2,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_normalize": True,
            "do_rescale": True,
        },
        "processor_config.json": {"processor_class": "Lfm2VlProcessor"},
    }  # fmt: skip
    return config, files, "<image>"


Family = Callable[[], tuple[dict[str, Any], dict[str, Any], str]]
FAMILIES: dict[str, Family] = {
    made.__name__: made
    for made in (
        *(gemma3, idefics3, lfm2_vl, llava, mistral3, pixtral, qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe),
        smolvlm,
        qwen3_5,
        qwen3_5_moe,
    )
}
