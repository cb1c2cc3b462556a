"""Models whose caches cannot be cut, in real engines: restored from RAM, or after a kill from disk, they give
the text of an uncached run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlx.core")

from mlx_server.protocol import Alive, Done, Generate, Ready, Sampling
from tests.component.mlx_server.engine.conftest import Engine
from tests.component.mlx_server.engine.models import tiny_models

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

STEP_TOKENS = 128
NO_CACHE = {"VESTAL_MLX__PROMPT_CACHE_RAM": "0", "VESTAL_MLX__PROMPT_CACHE_DISK": "0"}
SYSTEM = " ".join(f"Rule {n}: name the tide of day {n}, the wind, and {n * 3} birds." for n in range(24))
SAMPLINGS = {"greedy": Sampling(temperature=0.0), "drawn": Sampling(temperature=1.0, seed=7)}
Lives = Callable[..., Engine]


@pytest.fixture(scope="module", params=list(tiny_models.KINDS))
def folder(request, small_models_dir: Path, tmp_path_factory) -> Path:
    """Return a folder with one such model."""
    parent: Path = tmp_path_factory.mktemp("models")
    tiny_models.write(request.param, parent / "tiny", small_models_dir / "smollm2__135m")
    return parent


def started(home: Path, folder: Path, **env: str) -> Engine:
    own = {"VESTAL_MODELS_DIR": str(home / "none"), "VESTAL_MLX__MODELS_FOLDER": str(folder)}
    engine = Engine(home, {**own, "MLX_PRELOAD_MODELS": "tiny", **env})
    engine.wait(lambda e: isinstance(e, Ready))
    return engine


@pytest.fixture
def live(folder: Path) -> Iterator[Lives]:
    """Return a function that starts an engine in a home, with the cache of an earlier engine there."""
    engines: list[Engine] = []

    def start(home: Path) -> Engine:
        engines.append(started(home, folder))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def cold_engine(folder: Path, tmp_path_factory) -> Iterator[Engine]:
    """Start an engine without a cache, whose answers do not depend on earlier requests."""
    engine = started(tmp_path_factory.mktemp("cold"), folder, **NO_CACHE)
    yield engine
    engine.close()


def chat(id: str, question: str, how: str = "drawn", *before: dict[str, Any]) -> Generate:
    messages = ({"role": "system", "content": SYSTEM}, *before, {"role": "user", "content": question})
    return Generate(id, "tiny", "chat", messages=messages, max_tokens=24, sampling=SAMPLINGS[how])


def ask(engine: Engine, *ops: Generate) -> list[tuple[str, int]]:
    """Run requests together. Return each one's text and how many of its prompt's tokens came
    from the cache.
    """
    engine.send(*ops)
    return [(engine.text(op.id), engine.answer(op.id, Done).usage.cached_tokens) for op in ops]


def kill_when_written(engine: Engine, snapshots: int) -> None:
    engine.wait(lambda e: isinstance(e, Alive) and e.prompt_cache.written >= snapshots)
    engine.process.send_signal(signal.SIGKILL)
    engine.process.wait(10)


def test_answers_from_an_untrimmable_cache_restored_from_ram_or_disk_equal_the_answers_without_a_cache(
    live, cold_engine, home
):
    questions = {how: f"What came in {how}?" for how in SAMPLINGS}
    cold = {how: ask(cold_engine, chat(how, asked, how))[0][0] for how, asked in questions.items()}
    assert len(set(cold["drawn"].split())) > 4
    answer = {"role": "assistant", "content": cold["greedy"]}
    then = chat("two", "And then?", "greedy", {"role": "user", "content": questions["greedy"]}, answer)
    ((cold_next, _),) = ask(cold_engine, then)

    first = live(home)
    for how, asked in questions.items():
        assert ask(first, chat(how, asked, how))[0][0] == cold[how]
        ((text, had),) = ask(first, chat(f"{how} again", asked, how))
        assert text == cold[how]
        assert had == first.answer(how, Done).usage.prompt_tokens - 1
    kill_when_written(first, 1 + 2 * 2)  # what both begin with; and of each, its prompt's and answer's end

    second = live(home)
    ((text, had),) = ask(second, then)
    assert text == cold_next
    assert had >= first.answer("greedy", Done).usage.prompt_tokens - 1
    for how, asked in questions.items():
        ((text, had),) = ask(second, chat(how, asked, how))
        assert text == cold[how]
        assert had == second.answer(how, Done).usage.prompt_tokens - 1


def test_another_question_with_the_same_system_prompt_reuses_the_system_prompts_cached_state(
    live, cold_engine, home
):
    ops = [chat(f"q{n}", f"{n}. What came in on day {n}?") for n in range(3)]
    cold = [text for op in ops for text, _ in ask(cold_engine, op)]
    engine = live(home)
    (first,) = ask(engine, ops[0])
    others = ask(engine, *ops[1:])  # side by side
    assert [first[0], *(text for text, _ in others)] == cold
    total = engine.answer("q0", Done).usage.prompt_tokens
    assert first[1] == 0
    assert all(total - 40 < had < total - 10 for _, had in others)
    assert all(had % STEP_TOKENS for _, had in others)  # it stands where the last message begins, in mid-step
