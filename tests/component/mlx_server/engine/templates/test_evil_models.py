"""Models whose templates loop, fill memory or object, beside a stream of another model, in a real engine."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlx_server.protocol import Cancel, Done, Failed, Generate, Load, Loaded, Ready, Token, Unload, Unloaded
from tests.component.mlx_server.engine.conftest import CHAT, Engine, chat, engines_started
from tests.processes import has_ended
from tests.waiting import looks

pytestmark = pytest.mark.model

TEMPLATES = {
    "loops": "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
    "memory": "{% set x = 'a' * 10**9 %}",
    "text": "{% for a in range(99000) %}{{ 'x' * 100000 }}{% endfor %}",
    "macros": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "objects": "{{ raise_exception('roles must alternate') }}",
    "escapes": "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "broken": "{% for",
}
TEMPLATES["slow-if-asked"] = (
    "{% if slow %}" + TEMPLATES["loops"] + "{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
)


@pytest.fixture(scope="module")
def evil(small_models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Start an engine that has the small chat model under several names, each with a different template."""
    folder, good = tmp_path_factory.mktemp("evil"), small_models_dir / "smollm2__135m"
    for name, template in TEMPLATES.items():
        made = folder / name
        made.mkdir()
        for path in good.iterdir():
            if path.name != "vestal-model.json":
                os.link(path, made / path.name) if path.suffix == ".safetensors" else shutil.copy(path, made)
        (made / "chat_template.jinja").write_text(template)
    with engines_started(small_models_dir, tmp_path_factory) as start:
        engine = start(
            MLX_PRELOAD_MODELS=CHAT,
            VESTAL_MLX__MODELS_FOLDER=str(folder),
            VESTAL_MLX__MAX_LOADED_MODELS="3",
        )
        engine.wait(lambda e: isinstance(e, Ready))
        yield engine


def of_model(id: str, model: str, **more: Any) -> Generate:
    messages = ({"role": "user", "content": "Hello"},)
    return Generate(id, f"{model}:latest", "chat", messages=messages, max_tokens=2, **more)


def template_processes(engine: Engine) -> list[int]:
    found = []
    for child in psutil.Process(engine.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a compiler of MLX has just ended
            if "renderer.py" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def longest_gap(engine: Engine, stream: str, until: str, timeout_s: float = 60.0) -> float:
    """Return the longest time between two tokens of `stream` until `until` is answered, in seconds."""
    longest, last, deadline = 0.0, time.monotonic(), time.monotonic() + timeout_s
    seen = len(engine.events)
    while True:
        engine._receive(deadline)
        now, new = time.monotonic(), engine.events[seen:]
        seen = len(engine.events)
        if any(isinstance(event, Token) and event.id == stream for event in new):
            longest, last = max(longest, now - last), now
        assert not any(isinstance(event, Done) and event.id == stream for event in new), "it is too short"
        if any(isinstance(event, (Failed, Done)) and event.id == until for event in new):
            return max(longest, now - last)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("loops", "took longer than 5 s and was stopped"),
        ("memory", "of memory and was stopped"),
        ("text", "made a text of more than 16777216 characters and was stopped"),
        ("macros", "recursion"),
        ("objects", "refuses these messages: roles must alternate"),
        ("escapes", "is unsafe"),
        ("broken", "refuses these messages"),
    ],
)
def test_evil_template_fails_only_its_own_request_and_slows_down_no_simultaneous_stream(evil, model, words):
    """Nested loops once blocked all streams for 133 s; a text of 2 GB ended three engines."""
    evil.send(Load(f"load {model}", f"{model}:latest"))
    assert isinstance(evil.answer(f"load {model}", Loaded), Loaded)
    gaps: list[float] = []
    for attempt in range(3):
        stream, asked = f"beside {model} {attempt}", f"{model} {attempt}"
        evil.send(chat(stream, "Tell me a long story.", max_tokens=None))
        evil.wait(lambda e, id=stream: isinstance(e, Token) and e.id == id and e.index == 3)
        evil.send(of_model(asked, model))
        gaps.append(longest_gap(evil, stream, asked))
        failed = evil.answer(asked, Done)
        assert isinstance(failed, Failed)
        assert (failed.code, failed.retryable) == ("invalid_request", False)
        assert f"The chat template of {model}:latest" in failed.message and words in failed.message
        evil.send(Cancel(stream))
        evil.answer(stream, Done)
        assert evil.process.poll() is None
        if gaps[-1] < 1.0:
            break  # a template that blocks the streams does so at each attempt, a busy machine does not
    assert min(gaps) < 1.0


def test_request_cancelled_while_its_template_renders_ends_at_once_and_the_next_is_served(evil):
    evil.send(Load("ready", "slow-if-asked:latest"))
    evil.answer("ready", Loaded)
    took: list[float] = []
    for attempt in range(3):
        slow = f"slow {attempt}"
        evil.send(of_model(slow, "slow-if-asked", template={"slow": True}))
        time.sleep(0.3)
        started = time.monotonic()
        evil.send(Cancel(slow))
        done = evil.answer(slow, Done)
        assert (done.reason, evil.tokens(slow)) == ("cancelled", [])
        took.append(time.monotonic() - started)
        if took[-1] < 1.0:
            break  # a busy machine may delay one answer or the other
    assert min(took) < 1.0
    evil.send(of_model("next", "slow-if-asked"))
    assert evil.answer("next", Done).reason == "length"
    # It waits for the process at most, which is ended after 5 s: the loops would take minutes.
    assert time.monotonic() - started < 30.0


def test_unloaded_model_leaves_no_chat_template_process(evil):
    evil.send(Load("there", "slow-if-asked:latest"))
    evil.answer("there", Loaded)
    before = template_processes(evil)
    evil.send(Unload("gone", "slow-if-asked:latest"))
    evil.answer("gone", Unloaded)
    assert len(template_processes(evil)) == len(before) - 1


def test_request_after_its_template_process_was_killed_is_served(evil):
    evil.send(Unload("again", "slow-if-asked:latest"), of_model("first", "slow-if-asked"))
    assert evil.answer("first", Done).reason == "length"
    for pid in template_processes(evil):
        psutil.Process(pid).kill()
    evil.send(of_model("second", "slow-if-asked"), chat("third", "Hello", max_tokens=2))
    assert evil.answer("second", Done).reason == evil.answer("third", Done).reason == "length"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (
            {"role": "assistant", "content": "", "tool_calls": [{"function": "get_weather"}]},
            "function must be",
        ),
        ({"role": "assistant", "content": "", "tool_calls": "get_weather"}, "tool_calls must be a list"),
        ({"role": "user", "content": 5}, "content must be"),
    ],
)
def test_chat_with_an_invalid_message_fails_and_names_the_field(evil, message, field):
    """Earlier, a past tool call whose `function` was a string ended three engines and opened the breaker."""
    id = f"odd {field}"
    evil.send(Generate(id, CHAT, "chat", messages=({"role": "user", "content": "Hi"}, message)))
    failed = evil.answer(id, Done)
    assert failed.code == "invalid_request"
    assert "messages.1." in failed.message and field in failed.message


def test_json_schema_that_only_an_endless_value_satisfies_is_refused(evil):
    """Earlier, such a request was answered with 200 and an empty text."""
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"$ref": "#/$defs/n"}}}
    evil.send(chat("endless", "JSON", max_tokens=8, json_schema=schema))
    failed = evil.answer("endless", Done)
    assert failed.code == "invalid_request"
    assert "no text meets it" in failed.message


def test_template_process_ends_when_a_serving_engine_is_killed(small_models_dir, tmp_path_factory):
    with engines_started(small_models_dir, tmp_path_factory) as start:
        engine = start(MLX_PRELOAD_MODELS=CHAT)
        engine.wait(lambda e: isinstance(e, Ready))
        engine.send(chat("hello", "Hello", max_tokens=2))
        engine.answer("hello", Done)
        (pid,) = template_processes(engine)
        engine.process.kill()
        for _ in looks(30):
            if has_ended(pid):
                break
        assert has_ended(pid)


def test_chat_refused_by_a_template_leaves_no_traceback_in_the_log(evil):
    evil.send(of_model("object once more", "objects"))
    evil.answer("object once more", Done)
    assert "Traceback" not in evil.log.read_text()
