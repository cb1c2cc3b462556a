"""Several models at once: one load for all who ask, progress, other streams that go on, keep-alive."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
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
    Event,
    Load,
    Loaded,
    Loading,
    Ready,
    Token,
    Unload,
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
    usual = median(b - a for a, b in itertools.pairwise(before))
    pace: list[float] = []
    for attempt in range(3):
        if attempt:
            engine.send(Unload(f"again {attempt}", TWIN))
            engine.answer(f"again {attempt}", Unloaded)
        pace.append(pace_beside_two_loads(engine, attempt))
        # Beside each step, 50 ms of slices or one large tensor. Other processes of this machine prolong some
        # steps, or all those of one load.
        if pace[-1] < 5 * usual + 0.1:
            break
    engine.send(Cancel("stream"))
    assert min(pace) < 5 * usual + 0.1


def pace_beside_two_loads(engine: Engine, attempt: int) -> float:
    """Load TWIN for two requests at once, and return the median of the times between tokens of the stream."""
    one, two, at = f"one {attempt}", f"two {attempt}", len(engine.events)
    engine.send(Load(one, TWIN), Load(two, TWIN))
    during = times_of_tokens(engine, "stream", lambda e: isinstance(e, Loaded) and e.id == two)
    assert engine.answer(one, Loaded).load_s == engine.answer(two, Loaded).load_s > 0
    loads = [line for line in engine.logged() if line["event"] == "model_loaded" and line["model"] == TWIN]
    assert len(loads) == attempt + 1
    events = engine.events[at:]
    fractions = [e.fraction for e in events if isinstance(e, Loading) and e.model == TWIN]
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and fractions[-1] > 0.9
    assert len(set(fractions)) == len(fractions)
    gaps = [b - a for a, b in itertools.pairwise(during)]
    assert len(gaps) >= 5  # it went on all the while
    assert largest_part_without_a_token(events, "stream") < 0.7  # the largest tensor is 0.21 of the model
    return median(gaps)


def largest_part_without_a_token(events: Sequence[Event], id: str) -> float:
    """Return the largest fraction of TWIN that was loaded between two tokens of request `id`."""
    largest, at_token, loaded = 0.0, 0.0, 0.0
    for event in events:
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
    alive = engine.wait_for_next(lambda e: isinstance(e, Alive))
    assert {m.model: m.expires_in_s for m in alive.loaded}[EMBED] is None


def test_keep_alive_of_a_model_begins_when_its_last_request_ends(engine):
    engine.send(replace(chat("short stay", "Say hello.", max_tokens=20, keep_alive_s=3.0), model=TWIN))
    assert engine.answer("short stay", Done).usage.completion_tokens > 0
    began = time.monotonic()
    engine.wait(lambda e: isinstance(e, Unloaded) and e.model == TWIN)
    # The end of the answer, and that of the keep-alive, may reach the test late on a busy machine.
    assert 0.5 < time.monotonic() - began < 20
