"""The prefixes of conversations, by which the next turn finds the machine of the previous turn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.gateway.peers.conversation import MAX_PARTS, PIECE_BYTES, Asked, PrefixMemory, asked_in

URLS = ("", "http://a")
texts = st.text(max_size=30)


def asked(**body: Any) -> Asked:
    return asked_in(json.dumps({"model": "chat", **body}).encode())


@given(st.lists(texts, min_size=1, max_size=8), st.lists(texts, min_size=1, max_size=4))
def test_next_turn_of_a_conversation_finds_the_machine_that_has_the_whole_previous_turn(said, more):
    before = [{"role": "user", "content": text} for text in said]
    after = [*before, *({"role": "user", "content": text} for text in more)]
    memory = PrefixMemory()
    first, second = asked(messages=before), asked(messages=after)
    memory.note(first, "http://a")
    assert memory.prefix_bytes(second, URLS) == {"": 0, "http://a": first.beginnings[-1][1]}


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "other"},
        {"system": "another"},
        {"tools": [1]},
        {"instructions": "x"},
        {"messages": ["c", "b"]},
    ],
)
def test_conversations_that_differ_in_model_or_system_prompt_or_first_message_share_no_prefix(changed):
    body = {"system": "one", "messages": ["a", "b"]}
    memory = PrefixMemory()
    memory.note(asked(**body), "")
    assert memory.prefix_bytes(asked(**{**body, **changed}), [""]) == {"": 0}


def test_shared_prefix_of_long_prompts_is_counted_in_whole_pieces_of_a_fixed_size():
    memory = PrefixMemory()
    memory.note(asked(prompt="x" * 10_000), "")
    assert memory.prefix_bytes(asked(prompt="x" * 20_000), [""]) == {"": 2 * PIECE_BYTES}
    assert len(asked(input="x" * 10_000_000).beginnings) == MAX_PARTS


def test_memory_of_conversation_prefixes_is_bounded_and_drops_the_oldest():
    memory = PrefixMemory(size=3)
    for text in "abcd":
        memory.note(asked(prompt=text), "")
    found = [memory.prefix_bytes(asked(prompt=text), [""])[""] > 0 for text in "abcd"]
    assert found == [False, True, True, True]


ITEM = {"type": "item_reference", "id": "msg_a1b2_0"}


@pytest.mark.parametrize(
    ("body", "response_id"),
    [
        ({"input": [ITEM, {"role": "user", "content": "x"}]}, "resp_a1b2"),
        ({"input": [ITEM, {"id": "rs_c3_12"}]}, "resp_c3"),
        ({"input": [{"id": "msg_d4_in0"}]}, "resp_d4"),
        ({"input": [ITEM], "previous_response_id": "resp_e5"}, "resp_e5"),
        ({"input": [{"type": "item_reference", "id": "mine"}]}, ""),
        ({"input": [{"type": "item_reference", "id": 3}]}, ""),
        ({"input": [{"type": "message", "role": "user", "id": "msg_a1b2_0", "content": "x"}]}, ""),
        ({"input": [{"role": "user", "id": "msg_a1b2_0", "content": "x"}]}, ""),
        ({"input": "msg_a1b2_0"}, ""),
    ],
)
def test_request_that_refers_to_an_item_goes_where_the_response_of_the_item_is(body, response_id):
    """It went to any machine, which answered that there is no such item."""
    assert asked(**body).previous_response_id == response_id


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'{"model": 3}', b'{"messages": {"a": 1}}', b'{"messages": [', b"[" * 9999],
)
def test_conversation_prefix_of_any_json_body_is_read_without_an_error(body):
    assert isinstance(asked_in(body), Asked)


@given(st.binary(max_size=200))
def test_conversation_prefix_of_any_bytes_is_read_without_an_error(body):
    assert isinstance(asked_in(body), Asked)
