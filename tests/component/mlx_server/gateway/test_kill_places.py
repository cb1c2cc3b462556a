"""The real engine killed in the awkward places of an answer: the client gets what it would have got.

Each case is asked twice, once in peace and once with the engine killed after an exact token: see
`children/engine_that_is_killed.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.component.mlx_server.gateway.conftest import REPO, Gateway

pytestmark = [pytest.mark.model, pytest.mark.timeout(60)]

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
SHOWN = 'Tool: <tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>\n' * 4 + "Tool:"
TEMPLATE = (  # a model that copies what it is shown calls tools by itself, and thinks where it is asked to
    "{% if tools %}{{ messages[-1]['content'] }}{% else %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}{# </think> #}"
)

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
CASES: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "speech": (CHAT, {"messages": STORY}, {"tokens": 7}),
    "unforced call": (
        CHAT,
        {
            "messages": [{"role": "user", "content": SHOWN}],
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
    "penalties": (
        CHAT,
        {"messages": STORY, "temperature": 0.9, "seed": 5, "presence_penalty": 0.7, "frequency_penalty": 0.6},
        {"tokens": 9},
    ),
    "logprobs": (CHAT, {"messages": STORY, "logprobs": True, "top_logprobs": 2}, {"tokens": 6}),
    "three answers": (CHAT, {"messages": STORY, "n": 3, "temperature": 1.1, "seed": 2}, {"tokens": 19}),
    "schema": (CHAT, {"messages": STORY, "response_format": FORM, "max_tokens": 30}, {"tokens": 4}),
    "thought": (CHAT, {"messages": STORY, "chat_template_kwargs": {"enable_thinking": True}}, {"tokens": 8}),
}  # fmt: skip


class RealGateway(Gateway):
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
    home = tmp_path_factory.mktemp("home")
    folder = home / "found" / "copier"
    folder.mkdir(parents=True)
    for file in (models_dir / "smollm2__135m").iterdir():
        if file.name != "tokenizer_config.json":
            os.symlink(file.resolve(), folder / file.name)
    config = json.loads((models_dir / "smollm2__135m" / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    env = {"MODELS_FOLDER": str(home / "found"), "PRELOAD": '["copier"]', "PROGRESS_TIMEOUT_S": "30"}
    gateway = RealGateway(home, free_port(), **{f"VESTAL_MLX__{name}": value for name, value in env.items()})
    try:
        gateway.start()
        gateway.until(lambda: gateway.health()["status"] == "ok", "the gateway is ok", 40)
        yield gateway
    finally:
        gateway.stop()


def ask(gateway: Gateway, path: str, body: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """What a streamed answer amounts to: by choice its text, thoughts, calls, drawn tokens and reason."""
    body = {"model": "copier", "stream": True, "temperature": 0, "max_tokens": 14} | body
    whole: dict[int, dict[str, Any]] = {}
    with gateway.http.stream("POST", path, json=body) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]", lines
    for chunk in map(json.loads, lines[:-1]):
        for choice in chunk["choices"]:
            said = whole.setdefault(choice["index"], {"text": "", "thoughts": "", "calls": [], "drawn": []})
            delta = choice.get("delta") or {"content": choice.get("text")}
            said["text"] += delta.get("content") or ""
            said["thoughts"] += delta.get("reasoning_content") or ""
            said["calls"] += [call["function"] for call in delta.get("tool_calls") or ()]
            said["drawn"] += [row["token"] for row in (choice.get("logprobs") or {}).get("content") or ()]
            said["reason"] = choice["finish_reason"]
    return whole


@pytest.mark.parametrize("name", CASES)
def test_answer_whose_engine_is_killed_within_it_is_the_uninterrupted_one(real, name):
    path, body, place = CASES[name]
    if name == "held stop":  # it begins as the answer does further on, and then goes another way
        text = ask(real, path, body | {"stop": None})[0]["text"]
        body = body | {"stop": [text[12:22] + "@"]}
    peace = ask(real, path, body)
    survived = real.health()["requests"]["survived_crashes"]
    orders = real.home / "kill.json"
    orders.write_text(json.dumps(place))
    try:
        assert ask(real, path, body) == peace
        assert not orders.exists(), "the answer never came to that place"
    finally:
        orders.unlink(missing_ok=True)
    assert real.health()["requests"]["survived_crashes"] == survived + body.get("n", 1)
    CHECKS.get(name, lambda said: said["text"])(peace[0])


def _called(said: dict[str, Any]) -> None:
    (call,) = said["calls"]
    assert call["name"] == "get_weather"
    assert "city" in json.loads(call["arguments"])


def _drawn(said: dict[str, Any]) -> None:
    assert "".join(said["drawn"]) == said["text"] != ""


def _emoji(said: dict[str, Any]) -> None:
    assert said["text"].count("🦉") >= 1 and "\ufffd" not in said["text"]


def _thought(said: dict[str, Any]) -> None:
    assert said["thoughts"]


CHECKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "unforced call": _called,
    "forced call": _called,
    "logprobs": _drawn,
    "character": _emoji,
    "schema": lambda said: json.loads(said["text"]),
    "thought": _thought,
}
