"""Records of the answer log: what is read is what was written, whatever happened to the end of the file."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.gateway.answer_log import (
    Ended,
    Event,
    Left,
    Record,
    Silence,
    TakenUp,
    pack_record,
    read_records,
)
from mlx_server.protocol import Done, Failed, Token, ToolCall, Usage
from tests.disks.answer_log_fixtures import accepted, token

NUMBERS = st.integers(0, 5)
# Surrogates too: a model's JSON may spell half of a pair, and the text that a client was given has it.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
TOKENS = st.builds(
    Token,
    id=st.just("r"),
    token=st.integers(0, 300_000),
    text=TEXTS,
    index=NUMBERS,
    thinking=st.none() | TEXTS,
    tool_calls=st.none() | st.just((ToolCall("f", {"x": [1, None, "\ud83d"]}),)),
)
USAGE = Usage(prompt_tokens=3, completion_tokens=2)
DONE = st.builds(Done, id=st.just("r"), reason=st.just("stop"), usage=st.just(USAGE), text=TEXTS)
FAILED = st.builds(Failed, id=st.just("r"), code=st.just("engine_crashed"), message=TEXTS)
RECORDS: st.SearchStrategy[Record] = st.one_of(
    st.builds(accepted, st.just("r"), body=st.binary(max_size=20), seed=st.integers(0, 2**32 - 1)),
    st.builds(Event, answer=NUMBERS, event=TOKENS | DONE | FAILED),
    st.builds(Silence, answer=NUMBERS),
    *map(st.just, (Left(), TakenUp(), Ended())),
)
FILES = st.lists(RECORDS, max_size=6)


@given(records=FILES)
def test_answer_log_records_are_read_back_as_they_were_written(records: list[Record]):
    data = b"".join(map(pack_record, records))
    assert read_records(data) == (records, len(data))


@given(records=FILES, cut=st.integers(0, 400))
def test_answer_file_truncated_at_any_byte_gives_a_prefix_of_its_records(records: list[Record], cut: int):
    packed = list(map(pack_record, records))
    data = b"".join(packed)[:cut]
    whole = [end for end in range(len(packed) + 1) if len(b"".join(packed[:end])) <= len(data)][-1]
    assert read_records(data) == (records[:whole], len(b"".join(packed[:whole])))


@given(records=FILES.filter(bool), at=st.integers(0, 10**6))
def test_flipped_bit_in_an_answer_file_ends_the_reading_before_its_record(records: list[Record], at: int):
    packed = list(map(pack_record, records))
    data = bytearray(b"".join(packed))
    at %= len(data) * 8
    data[at // 8] ^= 1 << at % 8
    intact = [end for end in range(len(packed) + 1) if len(b"".join(packed[:end])) <= at // 8][-1]
    assert read_records(bytes(data)) == (records[:intact], len(b"".join(packed[:intact])))


@given(data=st.binary(max_size=200))
def test_answer_file_of_any_bytes_is_read_without_an_error(data: bytes):
    records, used = read_records(data)
    assert b"".join(map(pack_record, records)) == data[:used]


def test_zeros_left_at_the_end_of_an_answer_file_by_a_power_cut_are_not_read_as_records():
    data = pack_record(Left())
    assert read_records(data + bytes(4096)) == ([Left()], len(data))


@pytest.mark.parametrize(
    "unknown",
    [
        {"record": "left", "reason": "a field of a later version"},
        {"record": "moved"},
        {"record": "silence"},
        {"record": "event", "answer": 0, "event": {"ev": "hello"}},
        {"record": "frame", "answer": 0, "frame": b"M\0\0\0\0"},
        ["a list"],
    ],
)
def test_unknown_answer_record_with_a_valid_checksum_ends_the_reading(unknown: object):
    payload = msgspec.msgpack.encode(unknown)
    stored = len(payload).to_bytes(4, "big") + zlib.crc32(payload, len(payload)).to_bytes(4, "big") + payload
    before = pack_record(token(0))
    assert read_records(before + stored + before) == ([token(0)], len(before))


def test_request_record_that_cannot_be_packed_raises_value_error():
    for wrong in ({"query": "\ud83d"}, {"seed": 2**70}):
        with pytest.raises(ValueError):
            pack_record(accepted("r", **wrong))


def test_token_record_of_the_answer_log_takes_less_than_100_bytes():
    """A token is written 30 times a second for each stream."""
    event = Token(id="3f2a91bc-1042", token=150_000, text=" word", index=2000)
    assert len(pack_record(Event(0, event))) < 100
