"""`python -m mlx_server.model_store.gguf.convert FILE.gguf FOLDER`: convert a GGUF file for mlx-lm.

On Linux the weights become dense float32, because MLX's CPU build is ten times slower with bfloat16, and a
hundred times slower with quantized weights. On macOS they stay quantized, because Metal has kernels for them.
Each line on stdout is the fraction (0 to 1) of the weights that is converted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_server import blas
from mlx_server.model_store import disk
from mlx_server.model_store.gguf.config import end_tokens, sentence_files
from mlx_server.model_store.gguf.converter_process import EXIT_DISK_FULL
from mlx_server.model_store.gguf.families import Family, Placed
from mlx_server.model_store.gguf.inspection import GROUP, plan
from mlx_server.model_store.gguf.reader import UnsupportedGguf
from mlx_server.model_store.gguf.tokenizer import tokenizer_config, tokenizer_json

_FILE_BYTES = 2 << 30
"""How many bytes of weights are in one file of the converted model. The weights of one file are in memory at
one time.
"""
_CONTROL, _USER_DEFINED = 3, 4  # token types of llama.cpp


def convert(source: Path, target: Path, dense: bool) -> None:
    """Convert the GGUF file `source` to an MLX model in the new folder `target`; `dense` expands weights to
    float32.

    Raises UnsupportedGguf if the file cannot be converted, DiskFull if the disk lacks the space, and OSError
    if a file cannot be read or written.
    """
    import mlx.core as mx
    import numpy as np

    from mlx_server.model_store.gguf.tokenizer_check import check
    from mlx_server.model_store.gguf.weights import Target

    planned = plan(source)
    config, metadata = planned.config, planned.header.metadata
    bits = [each.tensor.type.bits for each in planned.placed]
    if not dense and (most := _most_common(bits)):
        config["quantization"] = {"group_size": GROUP, "bits": most}
    sizes = [planned.bytes_of(each, dense=dense) for each in planned.placed]
    _require_space(sum(sizes), target.parent)
    target.mkdir(parents=True)
    _write_texts(target, config, metadata)
    check(target, config["vocab_size"], _special_tokens(metadata))
    dtype = mx.float32 if dense else mx.bfloat16 if planned.family.wide_range else mx.float16
    data = np.memmap(source, np.uint8, "r")
    files = list(_batches(sizes, _FILE_BYTES))
    places: dict[str, str] = {}
    done = 0
    for number, file in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors" if len(files) > 1 else "model.safetensors"
        weights: dict[str, mx.array] = {}
        for i in file:
            weights |= _converted(planned.placed[i], planned.family, config, data, Target(dense, dtype))
            done += sizes[i]
            print(f"{done / sum(sizes):.4f}", flush=True)
        mx.save_safetensors(str(target / name), weights, metadata={"format": "mlx"})
        places |= dict.fromkeys(weights, name)
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": dict(sorted(places.items()))}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), "utf-8")


class DiskFull(Exception):
    """The disk lacks the space for the converted weights; the argument is the number of bytes needed."""


def _require_space(need_bytes: int, folder: Path) -> None:
    """Raise DiskFull unless the disk of `folder` has `need_bytes` of free space, and disk.MARGIN_BYTES more,
    which are to stay free.
    """
    need_bytes += disk.MARGIN_BYTES
    if disk.free_bytes(folder) < need_bytes:
        raise DiskFull(need_bytes)


def _converted(
    placed: Placed, family: Family, config: Mapping[str, Any], data: Any, kind: Any
) -> dict[str, Any]:
    """Return the MLX arrays into which one GGUF tensor is converted, by their names in mlx-lm.

    `placed` is the tensor, and the name of its weight in mlx-lm. `family` says what llama.cpp has changed in
    the tensor, which is undone here, and `config` (the model's config.json) has the number of heads. `data`
    is the content of the GGUF file in uint8; `kind` is the `Target`, which says how weights are stored.
    """
    from mlx_server.model_store.gguf.weights import arrays

    name = placed.tensor.name
    heads = 0
    if family.interleaved and (".attn_q." in name or ".attn_k." in name):
        heads = config["num_attention_heads" if ".attn_q." in name else "num_key_value_heads"]
    offset = 1.0 if family.norm_offset and name.endswith("norm.weight") else 0.0
    stem, _, last = placed.target.rpartition(".")
    found = arrays(placed.tensor, data, kind, heads, offset)
    return {f"{stem}.{last if part == 'weight' else part}": array for part, array in found.items()}


def _most_common(bits: Sequence[int | None]) -> int | None:
    """Return the most frequent number of bits per weight among quantized tensors; None if no tensor is
    quantized.

    It goes into `config.json`; mlx-lm derives the bits of other tensors from their shapes.
    """
    quantized = [each for each in bits if each is not None]
    return max(set(quantized), key=quantized.count, default=None)


def _batches(sizes: Sequence[int], limit_bytes: int) -> Iterator[range]:
    """Yield ranges of indices of `sizes`, in order. The sizes in a range add up to at most `limit_bytes`,
    unless a single one is larger.
    """
    start = total = 0
    for i, size in enumerate(sizes):
        if i > start and total + size > limit_bytes:
            yield range(start, i)
            start, total = i, 0
        total += size
    yield range(start, len(sizes))


def _special_tokens(metadata: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Return the id and text of each token that ends an answer, which the tokenizer must recognize in a text
    as one token.

    An ordinary token is left out, because a file may wrongly name one as an end token: llama.cpp's converter
    writes CodeGemma's token ids into the files of all Gemma models.
    """
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.token_type") or ()
    ends = [token for token in end_tokens(metadata) if 0 <= token < len(types)]
    return [(token, tokens[token]) for token in ends if types[token] in (_CONTROL, _USER_DEFINED)]


def _write_texts(target: Path, config: dict[str, Any], metadata: Mapping[str, Any]) -> None:
    for name, content in {"config.json": config, **sentence_files(metadata, config)}.items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text(json.dumps(content, indent=1), "utf-8")
    tokenizer = json.dumps(tokenizer_json(metadata), ensure_ascii=False, separators=(",", ":"))
    (target / "tokenizer.json").write_text(tokenizer, "utf-8")
    shown = json.dumps(tokenizer_config(metadata), ensure_ascii=False, indent=1)
    (target / "tokenizer_config.json").write_text(shown, "utf-8")


def main() -> int:
    """Convert the file named on the command line, and return the exit code.

    The exit code is 0 after success; 1 after a failure, whose reason is the last line on stderr; or
    EXIT_DISK_FULL, when stderr has the number of bytes needed.
    """
    source, target = map(Path, sys.argv[1:])
    blas.preload()
    try:
        convert(source, target, dense=sys.platform != "darwin")
    except DiskFull as error:
        print(error, file=sys.stderr)
        return EXIT_DISK_FULL
    except (UnsupportedGguf, OSError, RuntimeError, MemoryError) as error:
        print(error or type(error).__name__, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
