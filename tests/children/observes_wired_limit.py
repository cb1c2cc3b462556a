"""Loads a model, generates, closes, and prints how often anybody set Metal's wired limit, as JSON.

The device pretends to be one that recommends a limit: without that, mlx-lm leaves the limit alone anyway.
Usage: observes_wired_limit.py MODELS_DIR
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlx_server import blas
from mlx_server.engine.background_workers import BackgroundWorkers

blas.preload()

import mlx.core as mx  # noqa: E402
import mlx_lm.utils  # noqa: E402

from mlx_server.engine.generation.batch import BatchLimits  # noqa: E402
from mlx_server.engine.memory import readings  # noqa: E402
from mlx_server.engine.models.loading import LanguageModel  # noqa: E402
from mlx_server.engine.prompt_cache.model_cache import ModelCache  # noqa: E402
from mlx_server.engine.prompt_cache.store import BlockStore  # noqa: E402
from mlx_server.engine.scheduling.backend import release_memory  # noqa: E402
from mlx_server.engine.scheduling.request import Request, RequestStatus  # noqa: E402
from mlx_server.engine.scheduling.request_table import RequestTable  # noqa: E402
from mlx_server.engine.scheduling.runners.text_runner import TextRunner  # noqa: E402
from mlx_server.model_store import find  # noqa: E402
from mlx_server.protocol import Generate, Sampling, Token  # noqa: E402
from tests.children.whole_model import loaded  # noqa: E402
from vestal.config import load as load_config  # noqa: E402

calls: list[int] = []
library: Any = mx
library.set_wired_limit = calls.append
library.device_info = lambda: {"max_recommended_working_set_size": 1 << 30}


def generate(models_dir: str) -> int:
    """Tokens made by two requests in one batch."""
    config = load_config({"VESTAL_MODELS_DIR": models_dir}, Path.cwd())
    readings.set_wired_limit(config.mlx.wired_limit_bytes)
    entry = find(config, "smollm2:135m")
    assert entry is not None
    model = loaded(entry)
    assert isinstance(model, LanguageModel)
    cache = ModelCache(BlockStore(None, 0, 0), model.identity, {})
    workers, requests = BackgroundWorkers(lambda: None), RequestTable()
    guard: Any = SimpleNamespace(admit=lambda *_: None, extend_reservation=lambda *_: True)
    runner = TextRunner(entry.name, requests, model, BatchLimits(2, 128), workers, cache, guard)
    made = 0
    for id in ("a", "b"):
        op = Generate(id, entry.name, "text", prompt="Once upon", sampling=Sampling(), max_tokens=4)
        request = Request(op)
        requests.add(request)
        requests.move(request, RequestStatus.WAITING_FOR_MEMORY)
        runner.start(request, 0.0)
    while len(requests):
        made += sum(isinstance(event, Token) for event in runner.step(time.monotonic))
        runner.cache_pending_kv()
    runner.close()
    del runner
    release_memory()
    return made


made = generate(sys.argv[1])
by_us = len(calls)
mlx_lm.utils.maybe_set_recommended_wired_limit()  # the original: shows that it would have been seen
print(json.dumps({"tokens": made, "set": by_us, "set_by_the_original": len(calls) - by_us}), flush=True)
