"""Messages are normalized for chat templates, and the tokens before the last message are counted."""

from typing import Any

import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.render import (
    normalize_message,
    prompt_tokens,
    tokens_before_last_message,
)
from mlx_server.protocol import Generate


class Tokenizer:
    """Makes a token of each letter. If `strict`, its template refuses chats without a user's message."""

    has_chat_template, has_tool_calling, chat_template = True, False, "{{ tools }}"

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) for letter in text]

    def apply_chat_template(
        self, messages: list[dict], *, add_generation_prompt: bool, **_: Any
    ) -> list[int]:
        if self._strict and all(message["role"] != "user" for message in messages):
            raise ValueError("there is no user's message")
        text = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return self.encode(text + "<assistant>" * add_generation_prompt)


def chat(*messages: tuple[str, str]) -> Generate:
    all_messages = tuple({"role": role, "content": content} for role, content in messages)
    return Generate("r", "m", "chat", messages=all_messages)


def before_last_message(op: Generate, tokenizer: Any) -> str:
    prompt = prompt_tokens(op, tokenizer, 1000)
    return "".join(map(chr, prompt[: tokens_before_last_message(op, tokenizer, prompt)]))


def test_tokens_before_last_message_end_where_it_begins():
    rules = ("system", "Be brief.")
    assert before_last_message(chat(rules, ("user", "Why?")), Tokenizer()).startswith("<system>Be brief.")
    turns = (rules, ("user", "Why?"), ("assistant", "So."), ("user", "How?"))
    before = before_last_message(chat(*turns), Tokenizer())
    assert before.startswith("<system>Be brief.<user>Why?<assistant>So.")
    assert "How?" not in before


def test_tokens_before_last_message_is_zero_for_one_message_a_refusing_template_or_a_text():
    assert before_last_message(chat(("user", "Why?")), Tokenizer()) == ""
    refused = chat(("system", "Be brief."), ("user", "Why?"))
    assert before_last_message(refused, Tokenizer(strict=True)) == ""
    assert tokens_before_last_message(Generate("r", "m", "text", prompt="Why?"), Tokenizer(), [87]) == 0


def test_normalize_message_turns_arguments_from_a_string_into_an_object():
    call: dict = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    message = normalize_message({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message["content"] == ""
    assert message["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    assert message["tool_calls"][0]["id"] == "c1"
    assert call["function"]["arguments"] == '{"city": "Oslo"}'  # the request is not changed


def test_normalize_message_leaves_arguments_that_are_an_object():
    message = normalize_message({"role": "assistant", "tool_calls": [{"function": {"arguments": {"a": 1}}}]})
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": 1}


def test_normalize_message_arguments_that_are_not_json_raise_with_the_tools_name():
    with pytest.raises(RequestError, match="weather") as caught:
        normalize_message({"tool_calls": [{"function": {"name": "weather", "arguments": "{"}}]})
    assert caught.value.code == "invalid_request"
