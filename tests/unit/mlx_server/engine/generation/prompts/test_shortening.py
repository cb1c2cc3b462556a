"""A prompt longer than its context: what is dropped, how often it is rendered, and what stays the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker
from mlx_server.engine.generation.prompts.shortening import Shortener
from mlx_server.protocol import Generate

RULES = {"role": "system", "content": "rules"}


class Tokenizer:
    """Makes a token of each letter. Its template refuses a chat without a user's message, as many do."""

    has_chat_template, has_tool_calling, chat_template = True, False, "{{ tools }}"
    bos_token, bos_token_id = "^", ord("^")

    def __init__(self) -> None:
        self.renders = self.encoded_chars = 0
        self.begins_texts = True

    def __len__(self) -> int:
        return 0x110000

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        self.encoded_chars += len(text)
        return [ord(letter) for letter in "^" * (add_special_tokens and self.begins_texts) + text]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return None

    def apply_chat_template(self, messages: list[dict], *, add_generation_prompt: bool, **_: Any) -> str:
        self.renders += 1
        first = next(m for m in messages if m["role"] != "system")
        if first["role"] != "user":
            raise ValueError("conversation must begin with the user")
        text = "".join(f"<{m['role']}>{m['content']}" for m in messages)
        return "^" + text + "<assistant>" * add_generation_prompt


class Server:
    """Makes prompts for a model with a context of `context_tokens`."""

    def __init__(self, context_tokens: int) -> None:
        self.tokenizer = Tokenizer()
        prompts = PromptMaker(self.tokenizer, None, context_tokens)
        self._shortener = Shortener(prompts.tokens, prompts.count, context_tokens)

    def prompt(self, op: Generate) -> str:
        return "".join(map(chr, self._shortener.fitting(op)[1]))

    def messages(self, op: Generate) -> tuple[dict, ...]:
        shorter, tokens = self._shortener.fitting(op)
        assert len(tokens) < self._shortener.model_context_tokens
        return shorter.messages or ()


def chat(*messages: dict, truncate: bool = True, shift: bool = True, **more: Any) -> Generate:
    return Generate("r", "m", "chat", messages=messages, truncate=truncate, shift=shift, **more)


def turn(number: int, length: int = 20) -> list[dict]:
    text = f"{number:03}" + "x" * length
    return [{"role": "user", "content": text}, {"role": "assistant", "content": text.upper()}]


def turns(count: int, length: int = 20) -> list[dict]:
    return [message for number in range(count) for message in turn(number, length)]


LAST = {"role": "user", "content": "and now?"}


def test_conversation_that_fits_the_context_is_not_shortened():
    op = chat(RULES, *turns(3), LAST)
    server = Server(1000)
    assert server.messages(op) == op.messages
    assert server.tokenizer.renders == 1


@pytest.mark.parametrize("limit", [{"context_tokens": 300}, {}])
def test_shortening_a_conversation_drops_the_oldest_turns_and_keeps_system_and_last_message(limit):
    """A chat of 12 facts with num_ctx 512 was once refused with 400; Ollama drops the oldest turns."""
    late = {"role": "system", "content": "later rules"}
    conversation = [RULES, *turns(5), late, *turns(20)[10:], LAST]
    server = Server(1000 if limit else 300)
    kept = server.messages(chat(*conversation, **limit))
    assert kept[:2] == (RULES, late) and kept[-1] == LAST
    assert kept[2:] == tuple(conversation[-len(kept) + 2 :])
    assert kept[2]["role"] == "user"
    # As much stays as fits, up to the distance between two cuts: an eighth of the context in English.
    assert len(server.prompt(chat(*kept))) > 100


def test_conversation_longer_than_the_context_is_not_shortened_if_truncate_is_false():
    """With `truncate: false`, Ollama's clients ask for a refusal instead of a shortened prompt."""
    op = chat(*turns(20), LAST, truncate=False, context_tokens=300)
    assert len(Server(2000).prompt(op)) > 300  # the caller refuses what is longer than the context


def test_shortening_never_cuts_a_last_message_longer_than_the_context():
    assert "y" * 400 in Server(300).prompt(chat({"role": "user", "content": "y" * 400}))
    long = {"role": "user", "content": "y" * 400}
    assert Server(300).prompt(chat(RULES, *turns(9), long)).endswith("y" * 400 + "<assistant>")


@pytest.mark.parametrize(
    ("shift", "max_tokens", "room"), [(False, None, 1), (True, None, 32), (True, 5, 5), (True, 500, 32)]
)
def test_shortened_prompt_leaves_room_for_the_answer(shift, max_tokens, room):
    op = chat(*turns(40, 1), LAST, shift=shift, max_tokens=max_tokens)
    assert 256 - 60 < len(Server(256).prompt(op)) <= 256 - room


def test_prompt_without_droppable_turns_is_unchanged_even_if_it_leaves_little_room_for_the_answer():
    for shortens_text in (True, False):
        op = chat({"role": "user", "content": "y" * 240}, shortens_text=shortens_text)
        assert len(Server(280).prompt(op)) == 240 + len("^<user><assistant>")


def test_shortened_chat_of_an_agent_loses_its_oldest_tool_calls_and_keeps_its_task():
    task = {"role": "user", "content": "the task"}
    call = [{"id": "1", "function": {"name": "read", "arguments": {}}}]
    work = [
        message
        for number in range(30)
        for message in (
            {"role": "assistant", "content": f"{number:03}", "tool_calls": call},
            {"role": "tool", "content": f"{number:03}" + "z" * 9},
        )
    ]
    kept = Server(300).messages(chat(RULES, *turns(4), task, *work))
    assert kept[:2] == (RULES, task) and kept[-1] == work[-1]
    assert [m["role"] for m in kept[2:4]] == ["assistant", "tool"]
    assert kept[2:] == tuple(work[-len(kept) + 2 :])


def test_shortened_prompt_of_a_growing_conversation_usually_begins_with_the_tokens_of_the_previous_prompt():
    """If each request dropped only as much as it must, no part of its prompt would be in the prompt cache."""
    server, prompts = Server(1200), []
    for count in range(60, 120):
        prompts.append(server.prompt(chat(RULES, *turns(count), LAST)).removesuffix("and now?<assistant>"))
    extends = [later.startswith(earlier) for earlier, later in zip(prompts, prompts[1:], strict=False)]
    assert sum(extends) > 45


def test_shortening_a_very_long_conversation_renders_and_tokenizes_it_only_a_few_times():
    """4 MB of turns for a context of 4,000 tokens: Ollama renders all of it once for each message."""
    conversation = chat(RULES, *turns(20_000, 100), LAST)
    server = Server(4000)
    kept = server.messages(conversation)
    assert 10 < len(kept) < 60
    assert server.tokenizer.renders <= 8
    assert server.tokenizer.encoded_chars < 300_000


def test_shortening_within_the_last_turn_keeps_system_messages_in_their_order():
    """A system message between two answers was put before one that preceded it. Found by Hypothesis."""
    empty = {"role": "assistant", "content": ""}
    rules = [{"role": "system", "content": "abc "}, {"role": "system", "content": ""}]
    op = chat({"role": "user", "content": "first"}, rules[0], empty, rules[1], empty, shift=False)
    shorter, _ = Server(40)._shortener.fitting(op)
    assert shorter.messages is not None and len(shorter.messages) == 4
    assert [message for message in shorter.messages if message["role"] == "system"] == rules


roles = st.sampled_from(["system", "user", "user", "assistant", "tool"])
any_message = st.builds(lambda role, n: {"role": role, "content": "abc " * n}, roles, st.integers(0, 40))


@settings(max_examples=300)
@given(
    st.lists(any_message, max_size=25).map(lambda rest: [{"role": "user", "content": "first"}, *rest]),
    st.integers(40, 600),
    st.booleans(),
    st.lists(st.integers(1, 9), max_size=3),
)
def test_shortening_any_conversation_keeps_system_and_last_messages_and_is_reproducible(
    messages, context, shift, emitted
):
    op = chat(*messages, shift=shift)
    shorter, tokens = Server(context)._shortener.fitting(op)
    resumed = replace(op, emitted=tuple(emitted))
    assert Server(context)._shortener.fitting(resumed)[1] == tokens
    kept = list(shorter.messages or ())
    assert kept[-1] == messages[-1]
    assert [m for m in kept if m["role"] == "system"] == [m for m in messages if m["role"] == "system"]
    remaining = iter(messages)
    others = [m for m in kept if m["role"] != "system"]
    assert all(any(m == each for each in remaining) for m in others), "the order is kept"


# --- texts, and /api/generate ---


def text(prompt: str, **more: Any) -> Generate:
    return Generate("r", "m", "text", prompt=prompt, **{"truncate": True, "shift": True} | more)


def test_shortened_text_loses_its_beginning_but_keeps_the_bos_token():
    letters = "".join(chr(0x4E00 + n) for n in range(500))
    prompt = Server(200).prompt(text(letters))
    assert prompt[0] == "^" and letters.endswith(prompt[1:])
    assert 200 - 50 <= len(prompt) <= 200 - 25


def test_text_longer_than_the_context_is_not_shortened_if_shift_or_truncate_is_false():
    for op in (text("a" * 500, shift=False), text("a" * 500, truncate=False)):
        assert len(Server(200).prompt(op)) == 501  # the caller refuses it


def test_shortening_a_very_long_text_tokenizes_only_its_end():
    server = Server(5000)
    assert 4000 < len(server.prompt(text("word " * 400_000))) < 5000
    assert server.tokenizer.encoded_chars < 1_000_000


def test_shortened_single_message_of_a_generate_request_loses_the_beginning_of_its_text():
    letters = "".join(chr(0x4E00 + n) for n in range(500))
    op = chat(RULES, {"role": "user", "content": letters}, context_ids=(5, 6), shortens_text=True)
    prompt = Server(200).prompt(op)
    header = "^<system>rules<user>"
    assert prompt.startswith(header) and prompt.endswith("<assistant>")
    assert letters.endswith(prompt.removeprefix(header).removesuffix("<assistant>"))


def test_shortening_drops_the_oldest_tokens_of_ollamas_context_field_and_keeps_the_text_of_the_new_message():
    earlier = tuple(range(1000, 1400))
    op = chat({"role": "user", "content": "why?"}, context_ids=earlier, shortens_text=True)
    prompt = Server(300).prompt(op)
    own = "<user>why?<assistant>"
    assert prompt.endswith(own)
    kept: Sequence[int] = [ord(letter) for letter in prompt.removesuffix(own)]
    assert list(kept) == list(earlier[-len(kept) :])
    assert 300 - 80 < len(prompt) <= 300 - 37


def test_ollama_context_tokens_precede_the_prompt_without_a_second_bos_token():
    prompt = Server(300).prompt(chat({"role": "user", "content": "why?"}, context_ids=(94, 65)))
    assert prompt == "^A<user>why?<assistant>"


def test_bos_token_that_the_template_puts_before_each_message_is_kept_after_ollama_context_tokens():
    """SmolLM2's bos_token is <|im_start|>, which its tokenizer puts before no text."""
    server = Server(300)
    server.tokenizer.begins_texts = False
    op = chat({"role": "user", "content": "why?"}, context_ids=(65,))
    assert server.prompt(op) == "A^<user>why?<assistant>"


def test_shortened_prompt_of_token_ids_loses_its_first_tokens():
    op = Generate("r", "m", "text", prompt_ids=tuple(range(1, 500)), truncate=True, shift=True)
    assert Server(100).prompt(op)[-1] == chr(499)
    assert 80 < len(Server(100).prompt(op)) < 100


def test_ollama_context_token_beyond_the_models_vocabulary_is_refused():
    with pytest.raises(RequestError, match="is not a token of this model"):
        Server(300).prompt(chat({"role": "user", "content": "why?"}, context_ids=(0x110000,)))
