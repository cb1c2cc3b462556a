"""Print as JSON how many bytes a model and its prompts really need in this process.

Usage: measures_memory.py MODELS_DIR MODEL ROWS PROMPT_TOKENS STEP_TOKENS [KV_BITS]
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from mlx_server import blas

blas.preload()

import mlx.core as mx  # noqa: E402
import psutil  # noqa: E402

from mlx_server.engine.generation.batch import Batch, Sampled  # noqa: E402
from mlx_server.engine.kv.kv_quantization import KvQuantization  # noqa: E402
from mlx_server.engine.memory import readings  # noqa: E402
from mlx_server.engine.models.loading import LanguageModel, Weights  # noqa: E402
from mlx_server.model_store import find  # noqa: E402
from tests.children.whole_model import loaded  # noqa: E402
from vestal.config import load as load_config  # noqa: E402

ANSWER_TOKENS = 8


def run(model: Weights, rows: int, prompt_tokens: int, step_tokens: int, kv: KvQuantization | None) -> int:
    """Run a batch of prompts with short answers, or of texts to embed. Return the bytes of the final KV."""
    if not isinstance(model, LanguageModel):
        model.encode([list(range(1000, 1000 + prompt_tokens))] * rows)
        return 0
    batch = Batch(model.model, rows, step_tokens, kv)
    for row in range(rows):
        uid = batch.add([100 + row + n for n in range(prompt_tokens)], lambda x: mx.argmax(x, axis=-1), [])
    made = 0
    while made < rows * ANSWER_TOKENS:
        made += sum(isinstance(event, Sampled) for event in batch.step())
    computed = batch.computed(uid)
    assert computed is not None
    kv_bytes = sum(cache.nbytes for cache in computed.caches)
    batch.close()
    return kv_bytes


def main(
    models_dir: str, name: str, rows: int, prompt_tokens: int, step_tokens: int, kv_bits: int = 0
) -> None:
    kv = KvQuantization(kv_bits, 64) if kv_bits else None
    config = load_config({"VESTAL_MODELS_DIR": models_dir}, Path.cwd())
    entry = find(config, name)
    assert entry is not None
    guard = readings.memory_guard(None, step_tokens, kv_of=lambda name: kv)
    expected = guard.forecast(entry)
    model = loaded(entry)
    active = mx.get_active_memory()
    mx.reset_peak_memory()
    kv_bytes = run(model, rows, prompt_tokens, step_tokens, kv)
    tokens = prompt_tokens + ANSWER_TOKENS
    found = {
        "weights": [expected.weights.bytes, active],
        "requests": [
            expected.requests_bytes(rows, tokens),
            mx.get_peak_memory() - active,
        ],
        "kv": [expected.kv.bytes(rows, tokens) if expected.kv else 0, kv_bytes],
        "footprint": psutil.Process().memory_info().rss,
        "forecast": dataclasses.asdict(expected),
    }
    print(json.dumps(found), flush=True)


main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
