"""The records of an answer on their way to another machine."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server import protocol
from mlx_server.gateway.answer_log import (
    FORMAT,
    Accepted,
    Event,
    Left,
    Record,
    Silence,
    TakenUp,
    pack_record,
)
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.peers.passed_on import has_begun, is_passed_on, model_of, packed, unpacked

HEAD = Accepted(
    format=FORMAT,
    id="an-id",
    created_s=1.0,
    method="POST",
    path="/api/chat",
    query="",
    headers=(("content-type", "application/json"),),
    body=b'{"model": "chat", "messages": [1, {"a": 2}]}',
    seed=1,
    key_digest="a-key",
    body_digest="digest",
    version="1",
)
TOKEN = Event(0, protocol.Token("an-id", 5, "five", 0, prompt_tokens=3))
PATHS = frozenset({"/api/chat"})


def test_answer_passed_to_another_machine_is_marked_and_omits_records_about_its_client():
    records: list[Record] = [HEAD, Silence(0), TOKEN, Left(), TakenUp(), Left()]
    head, *rest = unpacked(packed(records), "an-id", PATHS)
    assert isinstance(head, Accepted)
    assert (is_passed_on(head), is_passed_on(HEAD)) == (True, False)
    assert msgspec.structs.replace(head, headers=HEAD.headers) == HEAD
    assert rest == [Silence(0), TOKEN]
    assert has_begun(records) and not has_begun([HEAD, Silence(0)])


@pytest.mark.parametrize(
    ("records", "answer_id"),
    [
        ([], "an-id"),
        ([TOKEN], "an-id"),
        ([HEAD], "another-id"),
        ([msgspec.structs.replace(HEAD, path="/api/delete")], "an-id"),
        ([msgspec.structs.replace(HEAD, method="DELETE")], "an-id"),
    ],
)
def test_answer_passed_on_by_a_peer_is_refused_if_its_id_or_path_or_records_are_invalid(records, answer_id):
    data = (
        packed(records)
        if records and isinstance(records[0], Accepted)
        else b"".join(map(pack_record, records))
    )
    with pytest.raises(BadRequest):
        unpacked(data, answer_id, PATHS)


def test_answer_records_are_accepted_only_if_marked_as_passed_on_and_of_an_unfinished_answer():
    with pytest.raises(BadRequest):
        unpacked(pack_record(HEAD), "an-id", PATHS)
    with pytest.raises(BadRequest):
        unpacked(packed([HEAD, TOKEN]) + pack_record(Left()), "an-id", PATHS)


@given(st.integers(0, 400), st.binary(max_size=6))
def test_answer_passed_on_by_a_peer_is_refused_if_its_records_are_damaged(cut, added):
    whole = packed([HEAD, TOKEN])
    damaged = whole[:cut] + added
    if damaged != whole:
        with pytest.raises(BadRequest):
            unpacked(damaged, "an-id", PATHS)


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (HEAD.body, "chat"),
        (b"", ""),
        (b"[1]", ""),
        (b'{"model": 7}', ""),
        (b'{"model": "\xff"}', ""),
        (b"[" * 100_000, ""),
    ],
)
def test_model_name_of_a_request_passed_on_by_a_peer_is_empty_if_its_body_is_invalid(body, model):
    assert model_of(body) == model
