"""A request goes on in the caches of an ended one, without a copy, and its answer is the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from mlx_lm.models import llama  # noqa: E402

from mlx_server.engine.background_workers import BackgroundWorker  # noqa: E402
from mlx_server.engine.generation.batch import Batch, Sampled  # noqa: E402
from mlx_server.engine.prompt_cache import mlx_arrays  # noqa: E402
from mlx_server.engine.prompt_cache import store as store_module  # noqa: E402
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder  # noqa: E402
from mlx_server.engine.prompt_cache.model_cache import ModelCache  # noqa: E402
from mlx_server.engine.prompt_cache.store import BlockStore  # noqa: E402
from mlx_server.engine.scheduling.prompt_preloading import PromptPreloading  # noqa: E402
from mlx_server.engine.scheduling.request import Request, RequestStatus  # noqa: E402
from mlx_server.memory_forecast.kv_quantization import KvQuantization  # noqa: E402
from mlx_server.protocol import Done, Failed, Generate, Sampling, Token  # noqa: E402
from tests.component.mlx_server.engine.test_faults_of_one_request import BAD, Runs  # noqa: E402

MANY = 1 << 26
PROMPT = tuple(range(10, 80))
QUANTIZED = KvQuantization(group_size=32, bits=8)


def text(id: str, *ids: int, max_tokens: int = 24, seed: int | None = None) -> Generate:
    sampling = (
        Sampling(temperature=0.0)
        if seed is None
        else Sampling(temperature=1.0, seed=seed, logit_bias=((BAD, -100.0),))
    )
    return Generate(id, "m", "text", prompt_ids=ids, max_tokens=max_tokens, sampling=sampling)


class Texts(Runs):
    """A runner that also collects the texts of the answers, by the ids of their requests."""

    def __init__(self, cache: ModelCache | None = None) -> None:
        super().__init__(cache)
        self.texts: dict[str, str] = {}

    def _note(self, events: Any, ended: dict[str, Done | Failed]) -> None:
        events = list(events)
        for event in events:
            if isinstance(event, Token):
                self.texts[event.id] = self.texts.get(event.id, "") + event.text
        super()._note(events, ended)


def opened(folder: Path) -> Texts:
    return Texts(ModelCache(BlockStore(BlockFolder(folder), MANY, MANY), "tiny", {}))


def store_of(runs: Texts) -> BlockStore:
    return runs.runner._cache._store


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Texts]:
    made = opened(tmp_path / "prompts")
    yield made
    made.runner.close()
    store_of(made).close()


@pytest.fixture
def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Texts]:
    """Return a runner whose store keeps no caches of ended requests."""
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "READY_SHARE", 0)
        made = opened(tmp_path / "other")
    yield made
    made.runner.close()
    store_of(made).close()


def forbid_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(*_: Any) -> Any:
        raise AssertionError("Blocks were copied.")

    monkeypatch.setattr(mlx_arrays, "concatenated", copied)


def answer(runs: Texts, op: Generate) -> tuple[str, int]:
    """Return the text of the request's answer, and how many tokens of its prompt were cached."""
    ended = runs.answers(op)[op.id]
    assert (
        isinstance(ended, Done) and len(runs.texts[op.id]) == ended.usage.completion_tokens == op.max_tokens
    )
    return runs.texts[op.id], ended.usage.cached_tokens


@pytest.mark.parametrize("seed", [None, 7])
def test_next_turn_uses_the_ready_caches_of_the_previous_turn_and_gets_the_answer_that_blocks_would_give(
    runs, without, monkeypatch, seed
):
    turns = (PROMPT, (*PROMPT, *range(40, 71)), (*PROMPT, *range(40, 71), *range(3, 33)))
    expected = [answer(without, text(f"t{n}", *ids, seed=seed)) for n, ids in enumerate(turns)]
    forbid_copies(monkeypatch)
    found = [answer(runs, text(f"t{n}", *ids, seed=seed)) for n, ids in enumerate(turns)]
    assert [words for words, _ in found] == [words for words, _ in expected]
    assert [cached for _, cached in found] == [0, len(turns[0]), len(turns[1])]


def test_caches_of_a_cancelled_request_are_reused_without_a_copy_by_the_next_request(runs, monkeypatch):
    request = Request(text("stopped", *PROMPT, max_tokens=500))
    runs.requests.add(request)
    runs.runner.tokenize(request, 0.0)
    wait([request.tokenization])
    runs.runner.take_tokens(request)
    runs.runner.start(request, 0.0)
    while request.status is not RequestStatus.RUNNING or request.generation.completion_tokens < 9:
        for prepared in runs.runner.prepared():
            runs.runner.join(prepared)
        list(runs.runner.step(lambda: 1.0))
    runs.runner.cancel(request, 1.0)
    runs.runner.cache_pending_kv()
    forbid_copies(monkeypatch)
    assert answer(runs, text("again", *PROMPT)) == (answer(Texts(), text("new", *PROMPT))[0], len(PROMPT) - 1)


def test_two_simultaneous_requests_that_continue_an_ended_request_get_the_same_answers_as_each_alone(runs):
    answer(runs, text("first", *PROMPT))
    runs.answers(text("a", *PROMPT, 5), text("b", *PROMPT, 6))
    alone = [answer(Texts(), text(id, *PROMPT, last))[0] for id, last in (("a", 5), ("b", 6))]
    assert [runs.texts[id] for id in "ab"] == alone


def test_caches_of_a_model_are_freed_when_it_is_unloaded(runs):
    answer(runs, text("first", *PROMPT))
    assert store_of(runs).ready_bytes > 0
    runs.runner.close()
    assert store_of(runs).ready_bytes == 0
    runs.runner._cache.keep_ready(PROMPT, [])
    assert store_of(runs).ready_bytes == 0


def test_caches_are_ready_after_a_restart_for_the_prompt_that_was_used_last(tmp_path, monkeypatch, without):
    """A first token after kill -9 once waited for the prompt to be read from disk and copied."""
    first = opened(tmp_path / "prompts")
    for number in range(2):
        expected, _ = answer(first, text(f"{number}", *PROMPT[number:], max_tokens=30))
        store_of(first).persist(60.0)
    store_of(first).close()
    second = opened(tmp_path / "prompts")
    woken = []
    worker = BackgroundWorker("preloader", lambda: woken.append(1))
    preloading = PromptPreloading(store_of(second), worker, lambda: 1 << 40)
    second.runner._cache.preload()
    for _ in range(1000):
        preloading.advance(True)
        if store_of(second).ready_bytes:
            break
        time.sleep(0.01)
    worker.close()
    forbid_copies(monkeypatch)
    again = answer(second, text("again", *PROMPT[1:], max_tokens=30))
    assert again == (expected, len(PROMPT) - 2)
    second.runner.close()
    store_of(second).close()


@pytest.mark.parametrize("kv", [None, QUANTIZED], ids=["plain", "quantized"])
def test_caches_taken_from_a_batch_equal_the_caches_restored_from_the_blocks_of_the_same_tokens(kv):
    mx.random.seed(1)
    shape = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 64,
        "num_attention_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 100, "num_key_value_heads": 1,
    }  # fmt: skip
    batch = Batch(llama.Model(llama.ModelArgs(**shape)), 4, 32, kv)

    def greedy(logits: Any) -> Any:
        return mx.argmax(logits, axis=-1)

    def drawn(uid: int, steps: int) -> list[int]:
        found = [one for _ in range(steps) for one in batch.step()]
        return [one.token for one in found if isinstance(one, Sampled) and one.uid == uid]

    uid = batch.add(PROMPT[:40], greedy, [])
    other = batch.add(PROMPT[5:45], greedy, [])
    drawn(uid, 4)
    assert batch.caches_alone(uid) is None, "two requests share their arrays"
    batch.remove(other)
    drawn(uid, 3)
    computed = batch.computed(uid)
    assert computed is not None
    blocks = mlx_arrays.cut(computed.caches, computed.row, computed.tokens, 0, len(computed.tokens))
    alone = batch.caches_alone(uid)
    assert alone is not None
    tokens, caches = alone
    assert (list(tokens), caches[0].size()) == (list(computed.tokens), len(computed.tokens))
    batch.remove(uid)
    restored = mlx_arrays.caches_of(mlx_arrays.BlockRun(tuple(blocks)), kv)
    for one, two in zip(caches, restored, strict=True):
        for mine, its in zip(mx_arrays(one), mx_arrays(two), strict=True):
            assert np.array_equal(mine, its)
    batch.close()


def mx_arrays(cache: Any) -> list[Any]:
    size, numbers = cache.size(), []
    for part in (cache.keys, cache.values):
        for array in part if isinstance(part, (list, tuple)) else [part]:
            numbers.append(np.array(array.astype(mx.float32))[..., :size, :])
    return numbers
