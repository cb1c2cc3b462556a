"""Messages, as chat templates expect them; and where the last one of them begins."""

from typing import Any

import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.render import normalized, prompt_tokens, tokens_before_last_turn
from mlx_server.protocol import Generate


class Tokenizer:
    """A token is a letter; its template knows only conversations that a user has begun, if `strict`."""

    has_chat_template, has_tool_calling, chat_template = True, False, "{{ tools }}"

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) for letter in text]

    def apply_chat_template(
        self, messages: list[dict], *, add_generation_prompt: bool, **_: Any
    ) -> list[int]:
        if self._strict and all(message["role"] != "user" for message in messages):
            raise ValueError("nobody has asked")
        text = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return self.encode(text + "<assistant>" * add_generation_prompt)


def chat(*messages: tuple[str, str]) -> Generate:
    told = tuple({"role": role, "content": content} for role, content in messages)
    return Generate("r", "m", "chat", messages=told)


def before_last_turn(op: Generate, tokenizer: Any) -> str:
    prompt = prompt_tokens(op, tokenizer, 1000)
    return "".join(map(chr, prompt[: tokens_before_last_turn(op, tokenizer, prompt)]))


def test_what_stands_before_the_last_turn_is_told():
    rules = ("system", "Be brief.")
    assert before_last_turn(chat(rules, ("user", "Why?")), Tokenizer()).startswith("<system>Be brief.")
    turns = (rules, ("user", "Why?"), ("assistant", "So."), ("user", "How?"))
    begun = before_last_turn(chat(*turns), Tokenizer())
    assert begun.startswith("<system>Be brief.<user>Why?<assistant>So.")
    assert "How?" not in begun


def test_what_cannot_be_told_apart_is_nothing():
    assert before_last_turn(chat(("user", "Why?")), Tokenizer()) == ""
    refused = chat(("system", "Be brief."), ("user", "Why?"))
    assert before_last_turn(refused, Tokenizer(strict=True)) == ""
    assert tokens_before_last_turn(Generate("r", "m", "text", prompt="Why?"), Tokenizer(), [87]) == 0


def test_arguments_given_as_a_string_become_an_object():
    call: dict = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    message = normalized({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message["content"] == ""
    assert message["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    assert message["tool_calls"][0]["id"] == "c1"
    assert call["function"]["arguments"] == '{"city": "Oslo"}'  # the request is left as it was


def test_arguments_given_as_an_object_stay():
    message = normalized({"role": "assistant", "tool_calls": [{"function": {"arguments": {"a": 1}}}]})
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": 1}


def test_arguments_that_are_no_json_are_refused_by_name():
    with pytest.raises(RequestError, match="weather") as caught:
        normalized({"tool_calls": [{"function": {"name": "weather", "arguments": "{"}}]})
    assert caught.value.code == "invalid_request"
