"""The engine's end of the link: an answer that no frame can carry fails its request, not the engine."""

from __future__ import annotations

import pytest

from mlx_server.engine.link import frame_of
from mlx_server.protocol import (
    Cancel,
    Failed,
    Op,
    ProtocolError,
    Ready,
    Token,
    ToolCall,
    decode_event,
    encode,
)

FOREIGN = object()
"""No frame can carry it."""


def test_engine_event_that_can_be_encoded_becomes_a_frame_and_its_request_is_not_cancelled():
    token, taken = Token("r", 1, "x", 0), list[Op]()
    assert frame_of(token, taken.append) == encode(token)
    assert not taken


def test_engine_event_that_cannot_be_encoded_fails_and_cancels_its_request(capsys):
    taken: list[Op] = []
    failed = decode_event(
        frame_of(Token("r", 1, "", 0, tool_calls=(ToolCall("f", {"x": FOREIGN}),)), taken.append)
    )
    assert isinstance(failed, Failed)
    assert (failed.id, failed.code) == ("r", "internal_error")
    assert "cannot be passed on: Token" in failed.message
    assert taken == [Cancel("r")]
    assert "event_not_sent" in "".join(capsys.readouterr())


def test_engine_event_that_belongs_to_no_request_and_cannot_be_encoded_raises_a_protocol_error():
    with pytest.raises(ProtocolError):
        frame_of(Ready((FOREIGN,)), list[Op]().append)  # type: ignore[arg-type]
