"""What a request no longer needs once its answer runs is freed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from mlx_server.engine.prompt_cache.block import Block  # noqa: E402
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder  # noqa: E402
from mlx_server.engine.prompt_cache.model_cache import ModelCache  # noqa: E402
from mlx_server.engine.prompt_cache.store import BlockStore  # noqa: E402
from mlx_server.engine.scheduling.request import BackgroundJobs, Request, RequestStatus  # noqa: E402
from mlx_server.engine.vision.pictures import Picture, PlacedPicture  # noqa: E402
from tests.component.mlx_server.engine.test_faults_of_one_request import Runs, text  # noqa: E402
from tests.waiting import looks  # noqa: E402

PROMPT = tuple(range(10, 80))
ALL = 1 << 40


class Pixels(dict[str, Any]):
    """Inputs of a vision tower to which a weak reference can be made."""


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    store = BlockStore(BlockFolder(tmp_path / "prompts"), 1 << 26, 1 << 26)
    made = Runs(ModelCache(store, "tiny", {}))
    yield made
    made.runner.close()
    store.close()


def tokenized(runs: Runs, request: Request) -> Request:
    runs.requests.add(request)
    runs.runner.tokenize(request, 0.0)
    wait([request.tokenization])
    return request


def blocks() -> int:
    gc.collect()
    return sum(isinstance(one, Block) for one in gc.get_objects())


def test_blocks_restored_for_a_running_answer_are_freed_with_the_ram_tier(runs):
    """They once stayed in memory until the answer ended, whatever the limit of the RAM tier."""
    store = runs.runner._cache._store
    runs.answers(text("first", *PROMPT))
    store.persist(60.0)
    store.free_ram(ALL)
    before = blocks()
    request = tokenized(runs, Request(text("second", *PROMPT)))
    runs.runner.take_tokens(request)
    runs.runner.start(request, 0.0)
    wait(request.jobs.futures)
    runs.runner.join(request)
    assert (request.status, request.generation.cached_tokens > 16) == (RequestStatus.RUNNING, True)
    store.preload_job(0)  # moves what was read into RAM
    store.free_ram(ALL)
    for _ in looks(10):  # the thread that has read them may hold its job for a moment
        if blocks() == before:
            break
    assert blocks() == before


def test_pixels_of_images_are_freed_once_they_are_computed(runs):
    """The result of the tokenizer's job once held them until the answer ended."""
    runs.runner._guard.images_computed = lambda model, request: None
    request = tokenized(runs, Request(text("a", *PROMPT)))
    inputs = Pixels(pixel_values=np.zeros(4))
    pixels = weakref.ref(inputs)
    picture = PlacedPicture(Picture(b"d", "", (5,), 1, inputs=inputs), 0, 3, 4)
    prepared = replace(request.tokenization.result(), pictures=(picture,))
    request.tokenization = Future()
    request.tokenization.set_result(prepared)
    del inputs, picture, prepared
    runs.runner.take_tokens(request)
    prompt = request.prompt
    assert prompt is not None
    request.generation, request.pictures, request.prompt = prompt.generation, prompt.pictures, None
    computed: Any = SimpleNamespace(caches=[], cached=0, restored=0, done=Future())
    request.jobs = BackgroundJobs(images=computed)
    del prompt
    runs.requests.move(request, RequestStatus.PREPARING)
    runs.runner.join(request)
    gc.collect()
    assert request.status is RequestStatus.RUNNING
    assert pixels() is None
