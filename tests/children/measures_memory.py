"""Print as JSON how many bytes a model and its prompts really need in this process: an object for each case.

Usage: measures_memory.py MODELS_DIR MODEL CASE...
A case is ROWS,PROMPT_TOKENS,STEP_TOKENS,KV_BITS; with 0 bits the keys and values stay as they are computed.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

from mlx_server import blas

blas.preload()

import mlx.core as mx  # noqa: E402

from mlx_server.engine.embeddings.encoder import Encoder  # noqa: E402
from mlx_server.engine.generation.batch import Batch, Sampled  # noqa: E402
from mlx_server.engine.memory import readings  # noqa: E402
from mlx_server.engine.models.loading import Weights  # noqa: E402
from mlx_server.memory_forecast.kv_quantization import KvQuantization  # noqa: E402
from mlx_server.model_store import ModelEntry, find  # noqa: E402
from tests.children.whole_model import loaded  # noqa: E402
from vestal.config import load as load_config  # noqa: E402

ANSWER_TOKENS = 8
ATTEMPTS = 3
"""On a busy machine less memory may be held at once than could be, so the highest of a few peaks counts."""


def run(model: Weights, rows: int, prompt_tokens: int, step_tokens: int, kv: KvQuantization | None) -> int:
    """Run a batch of prompts with short answers, or of texts to embed. Return the bytes of the final KV."""
    if isinstance(model, Encoder):
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


def measured(
    entry: ModelEntry, model: Weights, rows: int, prompt_tokens: int, step_tokens: int, kv_bits: int
) -> dict[str, Any]:
    """Return the forecasts of one case, each with what was measured."""
    kv = KvQuantization(kv_bits, 64) if kv_bits else None
    guard = readings.memory_guard(None, step_tokens, kv_of=lambda name: kv)
    expected = guard.forecast(entry)
    gc.collect()
    mx.clear_cache()
    active = mx.get_active_memory()
    tokens = prompt_tokens + ANSWER_TOKENS
    requests_bytes, peak = expected.requests_bytes(rows, tokens), 0
    for _ in range(ATTEMPTS):
        mx.reset_peak_memory()
        tracemalloc.start()  # numpy's arrays, which an embedder has besides MLX's
        kv_bytes = run(model, rows, prompt_tokens, step_tokens, kv)
        of_numpy = tracemalloc.get_traced_memory()[1] if isinstance(model, Encoder) else 0
        tracemalloc.stop()
        peak = max(peak, mx.get_peak_memory() - active + of_numpy)
        if peak > 0.9 * requests_bytes:
            break
    return {
        "weights": [expected.weights.bytes, active],
        "requests": [requests_bytes, peak],
        "kv": [expected.kv.bytes(rows, tokens) if expected.kv else 0, kv_bytes],
        "forecast": dataclasses.asdict(expected),
    }


def main(models_dir: str, name: str, cases: list[str]) -> None:
    config = load_config({"VESTAL_MODELS_DIR": models_dir}, Path.cwd())
    entry = find(config, name)
    assert entry is not None
    model = loaded(entry)
    print(json.dumps([measured(entry, model, *map(int, case.split(","))) for case in cases]), flush=True)


main(sys.argv[1], sys.argv[2], sys.argv[3:])
