"""The real engine is killed at a difficult point of an answer: the client gets the uninterrupted answer.

Each case is asked twice, the second time with the engine killed after a certain token (see
`children/engine_that_is_killed.py`): within a tool call, a character, a stop string, a JSON string, a
thought.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlx_vlm")

from tests.component.mlx_server.engine.vision import vision_models
from tests.component.mlx_server.gateway.conftest import REPO, Gateway
from tests.models.adapter_folders import write_adapter_for

pytestmark = pytest.mark.model

STORY = [{"role": "user", "content": "Tell me a story about a lighthouse."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 4}, "unit": {"enum": ["C"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
STRING = {"type": "string", "minLength": 20, "maxLength": 40}
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": STRING}}
CALL = 'Tool: <tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>\n'
PROMPT_OF_CALLS = CALL * 4 + "Tool:"
TEMPLATE = (  # the model copies its prompt: it calls tools if it is shown calls, and thinks if asked to
    "{% if tools %}{% for t in tools %}{{ t.function.name }}\n{% endfor %}"
    "{% for m in messages %}{{ m['content'] }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "{% endfor %}{% else %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}{# </think> #}"
)

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PICTURE = base64.b64encode(vision_models.picture(1)).decode()
LOOK = [
    {"type": "text", "text": "Look: "},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
    {"type": "text", "text": " what is it?"},
]
CASES: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "text": (CHAT, {"messages": STORY}, {"tokens": 7}),
    "unforced call": (
        CHAT,
        {
            "messages": [{"role": "user", "content": PROMPT_OF_CALLS}],
            "tools": [WEATHER],
            "stop": ["\n"],
            "max_tokens": 50,
        },
        {"held": 9},
    ),
    "forced call": (
        CHAT,
        {"messages": STORY, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 50},
        {"tokens": 9},
    ),
    "character": (TEXT, {"prompt": "Owl: 🦉. Owl: 🦉. Owl: 🦉. Owl:", "max_tokens": 24}, {"held": 2}),
    "held stop": (CHAT, {"messages": STORY, "stop": ["{held}"]}, {"held": 1}),
    "picture": (CHAT, {"model": "qwen2_vl", "messages": [{"role": "user", "content": LOOK}]}, {"tokens": 7}),
    "adapter": (CHAT, {"model": "copier:pirate", "messages": STORY}, {"tokens": 7}),
    "draft model": (
        CHAT,
        {"model": "drafted", "messages": STORY, "temperature": 0.9, "seed": 5, "max_tokens": 60},
        {"tokens": 31},
    ),
    "penalties": (
        CHAT,
        {"messages": STORY, "temperature": 0.9, "seed": 5, "presence_penalty": 0.7, "frequency_penalty": 0.6},
        {"tokens": 9},
    ),
    "logprobs": (CHAT, {"messages": STORY, "logprobs": True, "top_logprobs": 2}, {"tokens": 6}),
    "three answers": (CHAT, {"messages": STORY, "n": 3, "temperature": 1.1, "seed": 2}, {"tokens": 7}),
    "schema": (CHAT, {"messages": STORY, "response_format": FORM, "max_tokens": 30}, {"tokens": 4}),
    "thought": (CHAT, {"messages": STORY, "chat_template_kwargs": {"enable_thinking": True}}, {"tokens": 8}),
}  # fmt: skip
MOST_EQUAL = 12
COPIED = ("unforced call", "character")  # the model has to continue what it is shown


class GatewayWithKilledEngine(Gateway):
    def start(self) -> Gateway:
        program = REPO / "tests/children/gateway_with_killed_engine.py"
        with (self.home / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(program)], env=self.env, cwd=self.home, stdout=log, stderr=log
            )
        return self


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, free_port: Callable[[], int]
) -> Iterator[Gateway]:
    """A gateway whose engine has the real chat model."""
    yield from _gateway(tmp_path_factory.mktemp("home"), models_dir, free_port())


@pytest.fixture(scope="module")
def small(
    tmp_path_factory: pytest.TempPathFactory, small_models_dir: Path, free_port: Callable[[], int]
) -> Iterator[Gateway]:
    """A gateway whose engine has a small one, which starts and answers sooner."""
    yield from _gateway(tmp_path_factory.mktemp("home"), small_models_dir, free_port())


def _gateway(home: Path, models_dir: Path, port: int) -> Iterator[Gateway]:
    folder = home / "found" / "copier"
    folder.mkdir(parents=True)
    for file in (models_dir / "smollm2__135m").iterdir():
        if file.name != "tokenizer_config.json":
            os.symlink(file.resolve(), folder / file.name)
    config = json.loads((models_dir / "smollm2__135m" / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    write_adapter_for(folder, home / "pirate")
    vision_models.write("qwen2_vl", home / "found" / "qwen2_vl")
    copier = {"source": f"path:{folder}", "adapters": {"pirate": "path:pirate"}}
    drafted = {"source": f"path:{folder}", "draft": f"path:{folder}"}  # most of its guesses are right
    (home / "vestal.yaml").write_text(json.dumps({"models": {"copier": copier, "drafted": drafted}}))
    env = {"MODELS_FOLDER": str(home / "found"), "PRELOAD": '["copier"]'}
    env["MAX_REPEATED_TOKENS"] = str(MOST_EQUAL)
    gateway = GatewayWithKilledEngine(
        home, port, **{f"VESTAL_MLX__{name}": value for name, value in env.items()}
    )
    try:
        gateway.start()
        gateway.until(lambda: gateway.health()["status"] == "ok", "the gateway is ok", 90)
        yield gateway
    finally:
        gateway.stop()


def ask(gateway: Gateway, path: str, body: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return each choice of a streamed answer: its text, thoughts, calls, drawn tokens and finish reason."""
    body = {"model": "copier", "stream": True, "temperature": 0, "max_tokens": 14} | body
    whole: dict[int, dict[str, Any]] = {}
    with gateway.http.stream("POST", path, json=body) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", lines
    for chunk in map(json.loads, lines[:-1]):
        for choice in chunk["choices"]:
            empty = {"text": "", "thoughts": "", "calls": [], "drawn": []}
            answer_so_far = whole.setdefault(choice["index"], empty)
            delta = choice.get("delta") or {"content": choice.get("text")}
            answer_so_far["text"] += delta.get("content") or ""
            answer_so_far["thoughts"] += delta.get("reasoning_content") or ""
            answer_so_far["calls"] += [call["function"] for call in delta.get("tool_calls") or ()]
            answer_so_far["drawn"] += [
                row["token"] for row in (choice.get("logprobs") or {}).get("content") or ()
            ]
            answer_so_far["reason"] = choice["finish_reason"]
    return whole


@pytest.mark.parametrize("name", CASES)
def test_answer_whose_engine_is_killed_midway_equals_the_uninterrupted_one(request, name):
    gateway = request.getfixturevalue("real" if name in COPIED else "small")
    path, body, kill_at = CASES[name]
    if name == "held stop":  # the stop string begins like a part of the answer and ends differently
        text = ask(gateway, path, body | {"stop": None})[0]["text"]
        body = body | {"stop": [text[12:22] + "@"]}
    uninterrupted = ask(gateway, path, body)
    if name == "draft model":  # the engine reports its counts from time to time, and not when it is killed
        gateway.until(lambda: _accepted_of_draft_model(gateway) > 0, "the draft model's tokens are accepted")
    survived = gateway.health()["requests"]["survived_crashes"]
    orders = gateway.home / "kill.json"
    orders.write_text(json.dumps(kill_at))
    try:
        assert ask(gateway, path, body) == uninterrupted
        assert not orders.exists(), "the answer never came to that point"
    finally:
        orders.unlink(missing_ok=True)
    assert gateway.health()["requests"]["survived_crashes"] == survived + body.get("n", 1)
    CHECKS.get(name, lambda choice: choice["text"])(uninterrupted[0])


def _accepted_of_draft_model(gateway: Gateway) -> float:
    figures = dict(line.rsplit(" ", 1) for line in gateway.http.get("/metrics").text.splitlines())
    return float(figures.get('vestal_draft_tokens_accepted_total{source="model"}', 0))


def _check_call(choice: dict[str, Any]) -> None:
    (call,) = choice["calls"]
    assert call["name"] == "get_weather"
    assert "city" in json.loads(call["arguments"])


def _check_logprobs(choice: dict[str, Any]) -> None:
    assert "".join(choice["drawn"]) == choice["text"] != ""


def _check_emoji(choice: dict[str, Any]) -> None:
    assert choice["text"].count("🦉") >= 1 and "\ufffd" not in choice["text"]


def _check_thoughts(choice: dict[str, Any]) -> None:
    assert choice["thoughts"]


CHECKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "unforced call": _check_call,
    "forced call": _check_call,
    "logprobs": _check_logprobs,
    "character": _check_emoji,
    "schema": lambda choice: json.loads(choice["text"]),
    "thought": _check_thoughts,
}


TURNS = [
    message
    for number in range(20)
    for message in (
        {"role": "user", "content": f"Fact {number}: " + "word " * 20},
        {"role": "assistant", "content": "noted " * 10},
    )
]
SHORT = {"temperature": 0, "num_ctx": 300, "num_predict": 12}
OLLAMA_CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, int]]] = {
    "longer than its context": (
        "small",
        "/api/chat",
        {"messages": [{"role": "system", "content": "Be brief."}, *TURNS, *STORY], "options": SHORT},
        {"tokens": 5},
    ),
    "context of an earlier answer": (
        "small",
        "/api/generate",
        {"prompt": "And then?", "context": list(range(500, 1000)), "options": SHORT},
        {"tokens": 5},
    ),
    "repeats itself": (
        "real",
        "/api/generate",
        {"prompt": "Count: " + "0" * 80, "raw": True, "options": {"temperature": 0, "num_predict": 90}},
        {"tokens": 7},
    ),
}


def ask_ollama(gateway: Gateway, path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the text of a streamed answer, and what its last line says besides times."""
    with gateway.http.stream("POST", path, json={"model": "copier"} | body) as answer:
        lines = [json.loads(line) for line in answer.iter_lines() if line]
    text = "".join(line.get("response") or (line.get("message") or {}).get("content", "") for line in lines)
    return text, {name: lines[-1].get(name) for name in ("done_reason", "prompt_eval_count", "context")}


@pytest.mark.parametrize("name", OLLAMA_CASES)
def test_ollama_answer_whose_engine_is_killed_midway_equals_the_uninterrupted_one(request, name):
    """The new engine drops the same old turns, and counts the same repeated tokens."""
    model, path, body, kill_at = OLLAMA_CASES[name]
    gateway = request.getfixturevalue(model)
    text, last = uninterrupted = ask_ollama(gateway, path, body)
    (gateway.home / "kill.json").write_text(json.dumps(kill_at))
    assert ask_ollama(gateway, path, body) == uninterrupted
    assert not (gateway.home / "kill.json").exists(), "the answer never came to that point"
    assert last["done_reason"] == "length"
    if name == "repeats itself":
        assert text == "0" * (MOST_EQUAL + 1)
    else:
        assert 150 < last["prompt_eval_count"] <= 300 - SHORT["num_predict"]
    if path == "/api/generate" and not body.get("raw"):
        assert len(last["context"]) == last["prompt_eval_count"] + SHORT["num_predict"]
