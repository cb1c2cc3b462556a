"""Several models at once: one load for all who ask, progress, other streams that go on, keep-alive."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

import pytest
from msgspec.structs import replace

from mlx_server.protocol import (
    Alive,
    Cancel,
    Done,
    Embed,
    Embedding,
    Load,
    Loaded,
    Loading,
    Ready,
    Token,
    Unloaded,
)
from tests.component.mlx_server.engine.conftest import CHAT, EMBED, Engine, chat

pytestmark = pytest.mark.model
TWIN = "twin:latest"


@pytest.fixture(scope="module")
def engine(start_real, models_dir: Path, tmp_path_factory) -> Engine:
    """Start an engine with the chat model and, in a folder, a copy of it."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "twin").mkdir()
    for path in (models_dir / "smollm2__135m").iterdir():
        os.symlink(path, folder / "twin" / path.name)
    (folder / "twin" / "notes.txt").write_text("With a file of its own, it shares no weights in memory.")
    made: Engine = start_real(MLX_PRELOAD_MODELS=CHAT, VESTAL_MLX__MODELS_FOLDER=str(folder))
    made.wait(lambda e: isinstance(e, Ready))
    return made


def times_of_tokens(engine: Engine, id: str, until) -> list[float]:
    """Return the arrival time of each further token of request `id`, up to the event `until`."""
    came: list[float] = []
    at = len(engine.events)
    while True:
        for event in engine.events[at:]:
            if isinstance(event, Token) and event.id == id:
                came.append(time.monotonic())
            if until(event):
                return came
        at = len(engine.events)
        engine._receive(time.monotonic() + 40)


def test_simultaneous_loads_of_a_model_are_done_once_report_progress_and_stall_no_stream(engine):
    engine.send(chat("stream", "Tell me a very long story.", max_tokens=2000))
    before = times_of_tokens(engine, "stream", lambda e: isinstance(e, Token) and e.index == 30)
    engine.send(Load("one", TWIN), Load("two", TWIN))
    during = times_of_tokens(engine, "stream", lambda e: isinstance(e, Loaded) and e.id == "two")
    engine.send(Cancel("stream"))
    assert engine.answer("one", Loaded).load_s == engine.answer("two", Loaded).load_s > 0
    assert sum(line["event"] == "model_loaded" and line["model"] == TWIN for line in engine.logged()) == 1
    fractions = [e.fraction for e in engine.events if isinstance(e, Loading) and e.model == TWIN]
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and fractions[-1] > 0.9
    assert len(set(fractions)) == len(fractions)
    gaps = [b - a for a, b in zip(during, during[1:], strict=False)]
    usual = median(b - a for a, b in zip(before, before[1:], strict=False))
    assert len(gaps) >= 5  # it went on all the while
    # Beside each step, 50 ms of slices or one large tensor. Other processes of this machine prolong some.
    assert median(gaps) < 5 * usual + 0.1
    assert largest_part_without_a_token(engine, "stream") < 0.7  # the largest tensor is 0.21 of the model


def largest_part_without_a_token(engine: Engine, id: str) -> float:
    """Return the largest fraction of TWIN that was loaded between two tokens of request `id`."""
    largest, at_token, loaded = 0.0, 0.0, 0.0
    for event in engine.events:
        if isinstance(event, Loading) and event.model == TWIN:
            loaded = event.fraction
        elif isinstance(event, Token) and event.id == id:
            largest, at_token = max(largest, loaded - at_token), loaded
    return largest


def test_keep_alive_of_zero_unloads_the_model_after_its_request_and_a_negative_one_keeps_it_loaded(engine):
    engine.send(Embed("once", EMBED, ("text",), keep_alive_s=0.0))
    assert isinstance(engine.answer("once", Embedding), Embedding)
    engine.wait(lambda e: isinstance(e, Unloaded) and e.model == EMBED)
    engine.send(Load("stay", EMBED, keep_alive_s=-1.0))
    engine.answer("stay", Loaded)
    at = len(engine.events)
    alive = engine.wait(lambda e: isinstance(e, Alive) and e in engine.events[at:])
    assert {m.model: m.expires_in_s for m in alive.loaded}[EMBED] is None


def test_keep_alive_of_a_model_begins_when_its_last_request_ends(engine):
    engine.send(replace(chat("short stay", "Say hello.", max_tokens=20, keep_alive_s=1.0), model=TWIN))
    assert engine.answer("short stay", Done).usage.completion_tokens > 0
    began = time.monotonic()
    engine.wait(lambda e: isinstance(e, Unloaded) and e.model == TWIN)
    assert 0.5 < time.monotonic() - began < 5
