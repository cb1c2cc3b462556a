"""Memory forecasts against measurements, and a real engine with little memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlx_server.engine_environment import engine_environment
from mlx_server.memory_forecast.forecast import ENGINE_BYTES
from mlx_server.protocol import (
    Alive,
    Cancel,
    Done,
    Embed,
    Embedding,
    Generate,
    Load,
    Loaded,
    Loading,
    Ready,
    Token,
    Unloaded,
)
from tests.component.mlx_server.engine.conftest import CHAT, EMBED, Engine, chat, engines_started
from tests.models.small_models import shallow_models
from tests.unit.mlx_server.published_models import CONFIGS, headers

pytestmark = pytest.mark.model
REPO = Path(__file__).resolve().parents[4]
MIB = 1024**2
SHALLOW_LAYERS = 4
GIANTS = ("giant", "giant-2", "giant-3")
"""Models of which none has been read before."""
Measure = Callable[["Case"], dict[str, Any]]


def run_child(name: str, home: Path, *arguments: object) -> Any:
    command = [sys.executable, str(REPO / "tests" / "children" / name), *map(str, arguments)]
    env = os.environ | engine_environment(home) | {"PYTHONPATH": str(REPO)}  # they share what loads a model
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Case:
    """Prompts that are measured. `layers` is how many of the real chat model's 30 layers are used; 0: all."""

    model: str
    rows: int
    prompt_tokens: int
    step_tokens: int = 128
    kv_bits: int = 0
    layers: int = SHALLOW_LAYERS

    def __str__(self) -> str:
        return f"{self.rows},{self.prompt_tokens},{self.step_tokens},{self.kv_bits}"


WHOLE = [Case(CHAT, 1, 500, layers=0), Case(EMBED, 8, 256, layers=0)]
SHALLOW = [Case(CHAT, 1, 1000), Case(CHAT, 4, 500), Case(CHAT, 1, 1000, step_tokens=512)]
QUANTIZED = [
    Case(CHAT, rows, tokens, kv_bits=bits) for rows, tokens in ((1, 1000), (4, 500)) for bits in (8, 4)
]


@pytest.fixture(scope="module")
def shallow(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a models folder whose chat model has few of its layers.

    That model needs 193 MiB, the embedding model 92 MiB, and the engine itself 120 MiB.
    """
    folder = shallow_models(models_dir, tmp_path_factory.mktemp("models"), SHALLOW_LAYERS)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def start_shallow(shallow: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Engine]]:
    """Return a function that starts an engine with the models of `shallow`."""
    with engines_started(shallow, tmp_path_factory) as start_engine:
        yield start_engine


@pytest.fixture(scope="module")
def measure(models_dir: Path, shallow: Path, tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Return a function that returns forecasts and measurements, made in one process for each
    list of cases.
    """
    groups = [(models_dir, WHOLE[:1]), (models_dir, WHOLE[1:]), (shallow, SHALLOW), (shallow, QUANTIZED)]
    measured: dict[Case, dict[str, Any]] = {}

    def of(case: Case) -> dict[str, Any]:
        if case not in measured:
            folder, cases = next((folder, cases) for folder, cases in groups if case in cases)
            home = tmp_path_factory.mktemp("home")
            found = run_child("measures_memory.py", home, folder, case.model, *cases)
            measured.update(zip(cases, found, strict=True))
        return measured[case]

    return of


@pytest.mark.parametrize("case", [*WHOLE, *SHALLOW], ids=repr)
def test_memory_forecast_is_within_15_percent_of_the_measurement(measure, case):
    for forecast, found in (measure(case)["weights"], measure(case)["requests"]):
        assert forecast == pytest.approx(found, rel=0.15)


@pytest.mark.parametrize("case", [SHALLOW[0], *QUANTIZED], ids=repr)
def test_memory_forecast_of_quantized_kv_equals_the_measurement(measure, case):
    forecast, found = measure(case)["kv"]
    assert forecast == found > 0
    forecast, found = measure(case)["requests"]
    assert forecast == pytest.approx(found, rel=0.15)


def test_memory_footprint_of_the_engine_is_within_15_percent_of_the_forecast(start_real, measure):
    engine = start_real()
    engine.wait(lambda e: isinstance(e, Alive) and len(e.loaded) == 2)
    both = [measure(case)["forecast"] for case in WHOLE]
    resident = sum(forecast["weights"]["bytes"] + forecast["tokenizer_bytes"] for forecast in both)
    footprint = psutil.Process(engine.process.pid).memory_info().rss
    assert ENGINE_BYTES + resident == pytest.approx(footprint, rel=0.15)


def test_wired_memory_limit_is_changed_neither_by_the_engine_nor_by_its_use_of_mlx_lm(home, models_dir):
    found = run_child("observes_wired_limit.py", home, models_dir)
    assert found == {"tokens": 8, "set": 0, "set_by_the_original": 1}


def test_model_larger_than_the_memory_limit_is_refused_with_figures_and_others_are_served(start_real):
    engine = start_real(VESTAL_MLX__MEMORY_LIMIT="400m", MLX_PRELOAD_MODELS=EMBED)
    engine.wait(lambda e: isinstance(e, Ready))
    engine.send(chat("too big", "Say hello."), Load("load", CHAT))
    for id in ("too big", "load"):
        failed = engine.answer(id, Done, Loaded)
        assert (failed.code, failed.retryable) == ("insufficient_memory", False)
        assert failed.fields["needs_bytes"] > failed.fields["limit_bytes"] == 400 * MIB
        assert "400 MiB" in failed.message and "memory_limit" in failed.message
    engine.send(Embed("still", EMBED, ("text",)))
    assert isinstance(engine.answer("still", Embedding), Embedding)
    assert not any(isinstance(e, Unloaded) for e in engine.events)  # nothing was given up for it


def test_idle_model_is_unloaded_for_another_if_memory_holds_only_one(start_shallow):
    engine = start_shallow(VESTAL_MLX__MEMORY_LIMIT="370m", MLX_PRELOAD_MODELS=EMBED)
    assert engine.wait(lambda e: isinstance(e, Ready)).loaded == (EMBED,)
    engine.send(chat("first", "Say hello.", max_tokens=4))
    assert engine.answer("first", Done).reason == "length"
    assert [e.model for e in engine.events if isinstance(e, Unloaded)] == [EMBED]
    engine.send(Embed("back", EMBED, ("text",)))
    assert isinstance(engine.answer("back", Embedding), Embedding)
    assert [e.model for e in engine.events if isinstance(e, Unloaded)] == [EMBED, CHAT]


def test_request_that_lacks_memory_waits_but_one_that_can_never_fit_fails_with_insufficient_memory(
    start_real,
):
    engine = start_real(VESTAL_MLX__MEMORY_LIMIT="780m", MLX_PRELOAD_MODELS=CHAT)
    engine.wait(lambda e: isinstance(e, Ready))
    story = "Tell me a very long story."
    engine.send(chat("first", story, max_tokens=1500))
    engine.wait(lambda e: isinstance(e, Token) and e.id == "first")
    engine.send(
        chat("second", story, max_tokens=1500),
        chat("third", story, max_tokens=3),
        chat("left", story, max_tokens=3),
        Cancel("left"),
    )
    engine.send(chat("huge", story, max_tokens=8000))
    assert engine.answer("left", Done).reason == "cancelled"
    engine.wait(lambda e: isinstance(e, Token) and e.id == "first" and e.index == 30)
    assert not engine.tokens("second") and not engine.tokens("third")
    engine.send(Cancel("first"))
    engine.wait(lambda e: isinstance(e, Token) and e.id == "second")
    engine.send(Cancel("second"))
    assert engine.answer("third", Done).usage.completion_tokens == 3
    huge = engine.answer("huge", Done)
    assert (huge.code, huge.retryable) == ("insufficient_memory", False)
    assert huge.fields["answer_tokens"] > 7000
    assert "max_tokens" in huge.message


def test_model_load_that_lacks_memory_waits_until_the_other_model_is_idle(start_shallow):
    engine = start_shallow(VESTAL_MLX__MEMORY_LIMIT="370m", MLX_PRELOAD_MODELS=CHAT)
    engine.wait(lambda e: isinstance(e, Ready))
    engine.send(chat("running", "Tell me a very long story.", max_tokens=60))
    engine.wait(lambda e: isinstance(e, Token))
    engine.send(Embed("waiting", EMBED, ("text",)))
    embedded = engine.answer("waiting", Embedding)
    assert isinstance(embedded, Embedding)
    done = engine.answer("running", Done)
    assert done.usage.completion_tokens == len(engine.tokens("running")) > 20
    assert engine.events.index(done) < engine.events.index(embedded)  # all tokens came first


@pytest.fixture(scope="module")
def odd_models(start_real, tmp_path_factory):
    """Start an engine without preloaded models, and with a folder of models that are too large or broken."""
    folder = tmp_path_factory.mktemp("odd")
    for name in GIANTS:
        write_model(folder / name, CONFIGS["Llama-3.1-70B"], shards=30)
    for name in ("cut", "missing", "garbage", "config"):
        write_model(folder / name)
    shard = folder / "cut" / "model-00002-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size - 100)
    (folder / "missing" / "model-00002-of-00002.safetensors").unlink()
    (folder / "garbage" / "model-00001-of-00002.safetensors").write_bytes(os.urandom(5000))
    (folder / "config" / "config.json").write_text("{'not': json")
    engine = start_real(MLX_PRELOAD_MODELS="[]", VESTAL_MLX__MODELS_FOLDER=str(folder))
    engine.wait(lambda e: isinstance(e, Ready))
    return engine


def write_model(folder: Path, config: dict[str, Any] | None = None, shards: int = 2) -> None:
    """Write a model whose shards take no disk space: sparse files with valid headers."""
    folder.mkdir()
    config = config or {**CONFIGS["SmolLM2-135M"], "num_hidden_layers": 1, "vocab_size": 100}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = list(headers(config).items())
    places = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part, end = {}, 0
        for tensor, entry in tensors[shard::shards]:
            size = entry["data_offsets"][1] - entry["data_offsets"][0]
            part[tensor] = entry | {"data_offsets": [end, end + size]}
            end += size
            places[tensor] = name
        header = json.dumps(part).encode()
        (folder / name).write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(folder / name, 8 + len(header) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_70b_model_too_large_for_memory_is_refused_within_a_second_before_loading(odd_models):
    took = []
    for name in GIANTS:
        began = time.monotonic()
        odd_models.send(Generate(name, name, "text", prompt="Hello?"))
        failed = odd_models.answer(name, Done)
        took.append(time.monotonic() - began)
        assert (failed.code, failed.retryable) == ("insufficient_memory", False)
        assert failed.fields["needs_bytes"] > 131 * 1024**3
        assert f"{name}:latest" in failed.message and " free of " in failed.message
    assert min(took) < 1.0  # a busy machine delays one or the other
    assert not any(isinstance(e, Loading) for e in odd_models.events)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cut", "cut off"),
        ("missing", "1 of 2 files are missing"),
        ("garbage", "not a safetensors file"),
        ("config", "config.json: not JSON"),
    ],
)
def test_broken_model_is_refused_with_its_fault_and_the_engine_keeps_serving(odd_models, name, says):
    odd_models.send(Load(f"load {name}", name), Embed(f"use {name}", name, ("text",)))
    for id in (f"load {name}", f"use {name}"):
        failed = odd_models.answer(id, Loaded, Embedding)
        assert (failed.code, failed.retryable) == ("model_load_failed", False)
        assert says in failed.message and name in failed.message
        assert "\n" not in failed.message
    odd_models.send(Embed(f"after {name}", EMBED, ("text",)))
    assert isinstance(odd_models.answer(f"after {name}", Embedding), Embedding)
