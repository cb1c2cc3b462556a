"""The engine's reports on memory and written blocks agree with the facts."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlx_server.protocol import Alive, Done, Event, Generate, PromptCacheUse, Ready, Sampling, Token
from tests.component.mlx_server.engine.conftest import CHAT, Engine
from tests.models.small_models import TOKEN_BYTES

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

STEP_TOKENS = 256
"""mlx-lm's caches grow by this many tokens."""
TOKENS = 220
"""The length of an answer, which stays within the first step."""
TURNS = 10
BLOCK_TOKENS = 16


def fresh(engine: Engine) -> Alive:
    """Return the engine's next report."""
    alive: Alive = engine.wait_for_next(lambda e: isinstance(e, Alive))
    return alive


def turn(id: str, messages: list[dict]) -> Generate:
    greedy = Sampling(temperature=0.0)
    return Generate(id, CHAT, "chat", messages=tuple(messages), max_tokens=16, sampling=greedy)


def test_prompt_cache_of_a_ten_turn_conversation_holds_each_token_about_once(start):
    engine = start(MLX_PRELOAD_MODELS=CHAT)
    engine.wait(lambda e: isinstance(e, Ready))
    messages: list[dict] = []
    tokens = 0
    for number in range(TURNS):
        content = f"On day {number} three boats came in, and {number * 7} gulls. What did the keeper write?"
        messages.append({"role": "user", "content": content})
        engine.send(turn(f"turn{number}", messages))
        messages.append({"role": "assistant", "content": engine.text(f"turn{number}")})
        usage = engine.answer(f"turn{number}", Done).usage
        assert usage.cached_tokens >= tokens - BLOCK_TOKENS
        tokens = usage.prompt_tokens + usage.completion_tokens
    blocks = (tokens - 1) // BLOCK_TOKENS
    use = written(engine, blocks)
    assert use.written_bytes == on_disk(engine.log.parent)
    assert 0.9 < use.written_bytes / (tokens * TOKEN_BYTES) <= 1.2
    assert (
        use.written_bytes <= use.disk_bytes <= 1.001 * use.written_bytes
    )  # it is counted before it is written
    assert blocks * BLOCK_TOKENS * TOKEN_BYTES <= use.ram_bytes <= 1.2 * tokens * TOKEN_BYTES
    assert use.hits_ram > sum(range(TURNS))
    assert (use.hits_disk, use.broken, use.gone, use.not_written) == (0, 0, 0, 0)


def written(engine: Engine, blocks: int) -> PromptCacheUse:
    """Return the figures once `blocks` blocks are in files, which a background thread writes."""
    alive = engine.wait(lambda e: isinstance(e, Alive) and e.prompt_cache.written >= blocks)
    use: PromptCacheUse = alive.prompt_cache
    return use


def on_disk(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "cache" / "prompts").glob("*.safetensors"))


def _begin_in_one_step(events: Sequence[Event]) -> bool:
    """Return True if the first tokens of two requests come before the second token of either."""
    first, second = itertools.islice((event.id for event in events if isinstance(event, Token)), 2)
    return first != second


def _report_of_two_running(engine) -> Alive:
    """Return a report that was made while two requests ran; wait until they are done.

    Reports come once a second, with figures that may be half a second old. So the requests begin when the
    next report is due in three quarters of a second, in which a fast machine does not answer them. On a busy
    machine one request may begin a step before the other: its row is longer then, by that step.
    """
    for turn in range(20):
        fresh(engine)
        time.sleep(0.25)
        ids = [f"runs{turn}-{n}" for n in range(2)]
        began = len(engine.events)
        # Other first words: rows that begin with blocks of the prompt cache are not of whole steps.
        prompts = (f"{turn} and {n} are the numbers of a long story." for n in range(2))
        engine.send(
            *(
                Generate(id, CHAT, "text", prompt=text, max_tokens=TOKENS)
                for id, text in zip(ids, prompts, strict=True)
            )
        )
        for id in ids:
            engine.answer(id, Done)
            assert len([t for t in engine.tokens(id) if isinstance(t, Token)])
        if not _begin_in_one_step(engine.events[began:]):
            continue
        for event in engine.events[began:]:
            if isinstance(event, Done):
                break  # a report that follows may be made when only one runs, or while both are cleared away
            if isinstance(event, Alive) and event.memory.kv_bytes >= 2 * STEP_TOKENS * TOKEN_BYTES:
                return event
    raise AssertionError("no report showed the two requests that ran")


def test_reported_kv_bytes_match_the_running_requests_and_are_zero_afterwards(start):
    engine = start(MLX_PRELOAD_MODELS=CHAT)
    engine.wait(lambda e: isinstance(e, Ready))
    (idle,) = fresh(engine).loaded
    assert idle.kv_bytes == 0
    busy = _report_of_two_running(engine)
    assert busy.loaded[0].kv_bytes == busy.memory.kv_bytes == 2 * STEP_TOKENS * TOKEN_BYTES
    assert busy.memory.promised_bytes >= 2 * TOKENS * TOKEN_BYTES
    assert busy.memory.weights_bytes == busy.loaded[0].bytes == idle.bytes
    assert busy.memory.weights_bytes + busy.memory.kv_bytes < busy.footprint_bytes < busy.limit_bytes
    # The last report in the answers' time may still be on its way. An engine that keeps something never
    # reports this.
    done = engine.wait_for_next(
        lambda e: (
            isinstance(e, Alive)
            and (e.memory.kv_bytes, e.memory.promised_bytes, e.loaded[0].kv_bytes) == (0, 0, 0)
        )
    )
    use = done.prompt_cache
    assert use.ram_bytes > 0
    assert done.memory.prompt_cache_bytes == use.ram_bytes + use.ready_bytes
