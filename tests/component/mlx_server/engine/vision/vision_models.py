"""Model folders with a vision tower, of each family that is served: few random weights and a small tokenizer.

The weights are as in mlx-community's conversions. They are so large that every token of an image changes the
text: a wrong embedding, position or mask changes it too.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map_with_path
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.component.mlx_server.engine.vision.vision_families import FAMILIES, SPECIAL, TOKENS

GROUP_SIZE = 32
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

_NAMED_TOKENS = {
    "gemma3": {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    },
    "lfm2_vl": {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail": "<|img_thumbnail|>",
    },
}
"""Tokens that a family's processor asks the tokenizer for by these names."""


_TIED = ("gemma3", "lfm2-vl")
"""Families whose embeddings of tokens are also the weights of the logits."""


def write(family: str, folder: Path, bits: int = 0, change: Callable[..., None] | None = None) -> Path:
    """Write a reproducible model of this `family`, and return its folder. With `bits`, it is quantized.
    `change` may change the configuration and the processor's files.
    """
    config, files, marker = FAMILIES[family]()
    if change is not None:
        change(config, files)
    folder.mkdir(parents=True)
    end = TOKENS["<|im_end|>"]
    weights = _weights(config, bits)
    quantization = {"quantization": {"group_size": GROUP_SIZE, "bits": bits}} if bits else {}
    for name, content in {
        **files,
        "config.json": {**config, **quantization, "eos_token_id": end},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "model_max_length": 4096,
            "extra_special_tokens": _NAMED_TOKENS.get(family, {}),
            "chat_template": TEMPLATE.replace("IMAGE", marker),
        },
    }.items():
        (folder / name).write_text(json.dumps(content))
    _tokenizer().save(str(folder / "tokenizer.json"))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab={t: n for t, n in TOKENS.items() if t not in SPECIAL}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _weights(config: dict[str, Any], bits: int) -> dict[str, mx.array]:
    from mlx_vlm.utils import get_model_and_args, update_module_configs

    kinds, _ = get_model_and_args(dict(config))

    given = json.loads(json.dumps(config))
    given.setdefault("text_config", {})
    made = update_module_configs(kinds.ModelConfig.from_dict(given), kinds, given, ["text", "vision"])
    random = np.random.default_rng(7)
    tied = config["model_type"] in _TIED

    def values(name: str, like: mx.array) -> mx.array:
        if like.ndim < 2:  # biases small, scales of norms about 1
            noise = 0.1 * random.standard_normal(like.shape)
            return mx.array((noise + (0 if name.endswith("bias") else 1)).astype(np.float32))
        fan_in = int(np.prod(like.shape[1:]))
        gain = (1.0 if tied else np.sqrt(fan_in)) if "embed_tokens" in name else 1.6
        return mx.array((random.standard_normal(like.shape) * gain / np.sqrt(fan_in)).astype(np.float32))

    model = kinds.Model(made)
    model.update(tree_map_with_path(values, model.parameters()))
    if bits:
        nn.quantize(model, GROUP_SIZE, bits, class_predicate=_can_be_quantized)
    weights = dict(tree_flatten(model.parameters()))
    return {name: value for name, value in weights.items() if not (tied and "lm_head." in name)}


def _can_be_quantized(_: str, module: nn.Module) -> bool:
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % GROUP_SIZE == 0


def picture(seed: int, width: int = 48, height: int = 32, kind: str = "PNG") -> bytes:
    """Return a file with an image of large patches of random colors."""
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    image = Image.fromarray(np.kron(small, np.ones((8, 8, 1), dtype=np.uint8)))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()
