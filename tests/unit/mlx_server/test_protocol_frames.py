"""Frames are cut out of a byte stream wherever it was split, and bytes that begin no frame are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.protocol import MAX_FRAME_BYTES, FrameBuffer, ProtocolError
from mlx_server.protocol.frames import JSON, MSGPACK, pack_frame, unpack_frame

FORMATS = st.sampled_from([MSGPACK, JSON])


@given(st.lists(st.tuples(FORMATS, st.binary(max_size=40)), max_size=8), st.data())
def test_frame_buffer_yields_the_packed_frames_wherever_the_stream_is_split(payloads, data):
    frames = [pack_frame(*payload) for payload in payloads]
    stream, buffer, received = b"".join(frames), FrameBuffer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += list(buffer.feed(stream[:size]))
        stream = stream[size:]
    assert received == frames
    assert [unpack_frame(frame) for frame in received] == payloads


def test_frame_buffer_yields_whole_frames_before_it_raises_for_damaged_bytes():
    frame = pack_frame(MSGPACK, b"one")
    received = FrameBuffer().feed(frame + b"Segmentation fault\n" + frame)
    assert next(received) == frame
    with pytest.raises(ProtocolError, match="Segmentation"):
        next(received)


def test_frame_buffer_raises_at_an_announced_length_over_the_limit_without_waiting_for_bytes():
    announced = (MAX_FRAME_BYTES + 1).to_bytes(4, "big")
    with pytest.raises(ProtocolError):
        list(FrameBuffer().feed(MSGPACK + announced))


def test_frame_buffer_keeps_unread_frames_if_its_reader_stops_early():
    buffer, first, second = FrameBuffer(), pack_frame(MSGPACK, b"1"), pack_frame(MSGPACK, b"2")
    assert next(iter(buffer.feed(first + second))) == first
    assert list(buffer.feed(b"")) == [second]


@pytest.mark.parametrize(
    "damage", [b"", b"M", pack_frame(MSGPACK, b"abc")[:-1], pack_frame(JSON, b"a") + b"b"]
)
def test_unpack_of_a_truncated_or_too_long_frame_raises(damage):
    with pytest.raises(ProtocolError):
        unpack_frame(damage)
