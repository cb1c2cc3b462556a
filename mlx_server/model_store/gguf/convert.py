"""`python -m mlx_server.model_store.gguf.convert FILE.gguf FOLDER`: convert a GGUF file for mlx-lm.

On Linux the weights become dense float32: MLX's CPU build is ten times slower with bfloat16, and a hundred
times slower with quantized weights. On macOS they stay quantized, because Metal has kernels for them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from mlx_server import blas
from mlx_server.model_store import disk
from mlx_server.model_store.gguf.config import UnsupportedGguf, model_config
from mlx_server.model_store.gguf.converter_process import EXIT_DISK_FULL
from mlx_server.model_store.gguf.tokenizer import tokenizer_config, tokenizer_json

_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_IGNORED = {"rope_freqs.weight"}


def target_name(name: str) -> str:
    """Return mlx-lm's name for a GGUF tensor of the llama architecture. Raises UnsupportedGguf."""
    stem, _, last = name.rpartition(".")
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)", stem):
        if (part := _LAYER.get(match[2])) is not None:
            return f"model.layers.{match[1]}.{part}.{last}"
    elif stem in _TOP:
        return f"{_TOP[stem]}.{last}"
    raise UnsupportedGguf(f"it has a tensor {name!r}, which is not part of a llama model")


def convert(source: Path, target: Path, dense: bool) -> None:
    """Convert the GGUF file `source` to a new folder `target`.

    `dense` expands quantized weights to float32. Raises UnsupportedGguf, DiskFull and OSError.
    """
    import mlx.core as mx

    tensors, raw = cast(tuple[dict[str, mx.array], dict], mx.load(str(source), return_metadata=True))
    metadata = {key: _plain(value) for key, value in raw.items()}
    config = model_config(metadata, tied="output.weight" not in tensors)
    weights: dict[str, mx.array] = {}
    for name, tensor in tensors.items():
        if name in _IGNORED:
            continue
        heads = _heads(name, config)
        weights[target_name(name)] = _unpermute(tensor, heads) if heads else tensor
    bits = _bits(weights)
    if dense or bits is None:
        weights = {name: w.astype(mx.float32 if dense else mx.float16) for name, w in _dense(weights)}
    else:
        config["quantization"] = {"group_size": 32, "bits": bits}
        # A single float32 tensor would make all results computed from it float32.
        weights = {n: w if w.dtype == mx.uint32 else w.astype(mx.float16) for n, w in weights.items()}
    _require_space(sum(weight.nbytes for weight in weights.values()), target.parent)
    target.mkdir(parents=True)
    for name, content in _files(config, metadata).items():
        (target / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "mlx"})


class DiskFull(Exception):
    """The disk has no space for the number of bytes that is the argument."""


def _require_space(need_bytes: int, folder: Path) -> None:
    """Raise DiskFull if the weights do not fit. MLX is lazy, so nothing has been computed until now."""
    need_bytes += disk.MARGIN_BYTES
    if disk.free_bytes(folder) < need_bytes:
        raise DiskFull(need_bytes)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _heads(name: str, config: Mapping[str, Any]) -> int | None:
    """Return the number of heads if the tensor's rows must be reordered, else None."""
    if ".attn_q." in name:
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if ".attn_k." in name else None


def _unpermute(tensor: Any, heads: int) -> Any:
    """Return the tensor with its rows in mlx-lm's order.

    llama.cpp interleaves the two halves of each head's rows for its rotary embedding. Only whole rows move,
    so packed weights, scales and biases are all treated alike.
    """
    rows = tensor.shape[0]
    return tensor.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(tensor.shape)


def _bits(weights: Mapping[str, Any]) -> int | None:
    """Return the bits per weight of most quantized tensors; None if no tensor is quantized.

    mlx-lm derives the bits of tensors that differ from their shapes.
    """
    counts: dict[int, int] = {}
    for name in weights:
        if name.endswith(".scales"):
            packed = weights[name.removesuffix("scales") + "weight"]
            bits = packed.shape[-1] // weights[name].shape[-1]  # 32-bit words per group of 32 weights
            counts[bits] = counts.get(bits, 0) + 1
    return max(counts, key=lambda bits: counts[bits], default=None)


def _dense(weights: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (name, dense weight) for each weight; quantized ones are expanded."""
    import mlx.core as mx

    for name, weight in weights.items():
        stem, _, last = name.rpartition(".")
        scales = weights.get(f"{stem}.scales")
        if scales is None:
            yield name, weight
        elif last == "weight":
            bits = weight.shape[-1] // scales.shape[-1]
            yield (
                name,
                mx.dequantize(
                    weight,
                    scales.astype(mx.float32),
                    weights[f"{stem}.biases"].astype(mx.float32),
                    group_size=32,
                    bits=bits,
                ),
            )


def _files(config: dict[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "config.json": config,
        "tokenizer.json": tokenizer_json(metadata),
        "tokenizer_config.json": tokenizer_config(metadata),
    }


def main() -> int:
    """Convert, and return the exit code.

    0: done. 1: failed; the last line on stderr is the reason. EXIT_DISK_FULL: stderr is the bytes needed.
    """
    source, target = map(Path, sys.argv[1:])
    blas.preload()
    try:
        convert(source, target, dense=sys.platform != "darwin")
    except DiskFull as error:
        print(error, file=sys.stderr)
        return EXIT_DISK_FULL
    except (UnsupportedGguf, OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
