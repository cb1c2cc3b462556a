"""A small random model with the template and the special tokens of gpt-oss, in a real engine.

Its weights never write a header, so the tests begin in the middle of an answer, as after a killed engine.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from mlx_server.protocol import Done, Generate, Ready, Sampling
from tests.component.mlx_server.engine.conftest import Engine, engines_started
from tests.models.model_templates import GPT_OSS

pytestmark = pytest.mark.model

TOKENS = {
    "<repo_name>": "<|start|>",
    "<reponame>": "<|channel|>",
    "<file_sep>": "<|message|>",
    "<filename>": "<|end|>",
    "<gh_stars>": "<|call|>",
    "<issue_start>": "<|return|>",
    "<issue_comment>": "<|constrain|>",
}
"""Special tokens of the small model's tokenizer, and what they are called here."""

THOUGHT = "<|channel|>analysis<|message|>Let me think"
FINAL = f"{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>"
SCHEMA = {
    "type": "object",
    "properties": {
        "role": {"enum": ["cook", "smith"]},
        "age": {"type": "integer", "maximum": 9, "minimum": 0},
    },
    "required": ["role", "age"],
}
TOOL = {"type": "function", "function": {"name": "weather"}}
CALL_SCHEMA = {
    "type": "object",
    "properties": {"name": {"const": "weather"}, "arguments": SCHEMA},
    "required": ["name", "arguments"],
}


@pytest.fixture(scope="module")
def folder(small_models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder with one model."""
    parent: Path = tmp_path_factory.mktemp("models")
    made, small = parent / "harmony", small_models_dir / "smollm2__135m"
    made.mkdir()
    for path in small.iterdir():
        if path.suffix == ".safetensors":
            os.link(path, made / path.name)
        elif path.name not in ("vestal-model.json", "tokenizer.json"):
            shutil.copy(path, made)
    text = (small / "tokenizer.json").read_text()
    for old, new in TOKENS.items():
        text = text.replace(json.dumps(old), json.dumps(new))
    (made / "tokenizer.json").write_text(text)
    (made / "chat_template.jinja").write_text(GPT_OSS)
    return parent


@pytest.fixture(scope="module")
def harmony(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engines_started(folder / "none", tmp_path_factory) as start:
        engine = start(VESTAL_MLX__MODELS_FOLDER=str(folder), MLX_PRELOAD_MODELS="harmony")
        engine.wait(lambda e: isinstance(e, Ready))
        yield engine


@pytest.fixture(scope="module")
def encode(folder: Path) -> Any:
    tokenizer = Tokenizer.from_file(str(folder / "harmony" / "tokenizer.json"))
    return lambda text: tuple(tokenizer.encode(text, add_special_tokens=False).ids)


def chat(id: str, emitted: tuple[int, ...] = (), **more: Any) -> Generate:
    messages = ({"role": "system", "content": "Brief"}, {"role": "user", "content": "Hi"})
    limit = len(emitted) + more.pop("more_tokens", 8)
    sampling = Sampling(temperature=0.0)
    return Generate(
        id, "harmony", "chat", messages=messages, max_tokens=limit, emitted=emitted, sampling=sampling, **more
    )


def test_gpt_oss_answer_without_headers_is_text_and_is_the_same_if_resumed_at_any_token(harmony):
    harmony.send(chat("plain"))
    whole = harmony.text("plain")
    assert whole and harmony.answer("plain", Done).reason == "length"
    sent = harmony.tokens("plain")
    for cut in (1, 5):
        id = f"plain {cut}"
        harmony.send(chat(id, tuple(token.token for token in sent[:cut]), more_tokens=8 - cut))
        assert "".join(token.text for token in sent[:cut]) + harmony.text(id) == whole


def test_json_schema_does_not_constrain_the_thinking_of_a_gpt_oss_answer_resumed_during_thinking(
    harmony, encode
):
    """The grammar must not apply before the thinking has ended."""
    harmony.send(chat("thought", encode(THOUGHT), json_schema=SCHEMA))
    done = harmony.answer("thought", Done)
    assert harmony.text("thought") == ""
    assert any(token.thinking for token in harmony.tokens("thought"))
    assert done.usage.reasoning_tokens >= 8


def test_gpt_oss_final_message_follows_the_grammar(harmony, encode):
    harmony.send(chat("final", encode(FINAL), json_schema=SCHEMA, more_tokens=60))
    assert harmony.answer("final", Done).reason == "stop"
    assert json.loads(harmony.text("final"))["role"] in ("cook", "smith")


@pytest.mark.parametrize("header", ["<|channel|>final", "<|channel|>commentary to=functions.weather json"])
def test_gpt_oss_required_tool_call_is_made_from_the_final_or_the_commentary_channel(harmony, encode, header):
    id = f"call {header}"
    emitted = encode(f"{THOUGHT}<|end|><|start|>assistant{header}<|message|>")
    more = {"tools": (TOOL,), "tool_choice": "required", "json_schema": CALL_SCHEMA}
    harmony.send(chat(id, emitted, more_tokens=80, **more))
    done = harmony.answer(id, Done)
    assert done.reason == "tool_calls"
    (call,) = done.tool_calls
    assert call.name == "weather" and call.arguments["role"] in ("cook", "smith")
    assert harmony.text(id) == ""
