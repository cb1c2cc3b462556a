"""When a resumable answer needs keep-alives, which count as frames; and frames that are held back."""

from __future__ import annotations

import pytest

from mlx_server.gateway.answer_log import FORMAT, Accepted, NoLog
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer

HEAD = Accepted(FORMAT, "x", 0.0, "POST", "/api/chat", "", (), b"", 1, None, "", "1")


@pytest.mark.parametrize(
    ("is_resumed", "frames", "first_frames", "outlives_client", "needed"),
    [
        (False, 0, [0], False, True),
        (False, 0, [], False, False),
        (False, 0, [], True, True),
        (False, 3, [0, 900], False, True),
        (True, 3, [3], False, True),
        (True, 3, [4], False, False),
        (True, 3, [0, 4], False, False),
        (True, 3, [], False, False),
        (True, 3, [4], True, False),
    ],
)
def test_resumable_answer_needs_keep_alives_only_while_a_client_waits_for_a_new_frame(
    is_resumed, frames, first_frames, outlives_client, needed
):
    answer = KeptAnswer(HEAD, NoLog(), lambda answer: None, was_accepted=is_resumed)
    answer.rendering.frames += [b"{}\n"] * frames
    answer.first_frames += first_frames
    answer.outlives_client = outlives_client
    assert answer.needs_keep_alives == needed


async def test_held_back_frames_are_sent_when_released_and_dropped_if_another_gateway_continues_the_answer():
    for moves in (False, True):
        rendering = KeptAnswer(HEAD, NoLog(), lambda answer: None).rendering
        await rendering.take({"type": "http.response.start", "status": 200, "headers": []})
        await rendering.take({"type": "http.response.body", "body": b"1", "more_body": True})
        rendering.hold()
        await rendering.take({"type": "http.response.body", "body": b"2", "more_body": True})
        await rendering.take({"type": "http.response.body", "body": b"", "more_body": False})
        rendering.end()
        assert (rendering.frames, rendering.is_complete) == ([b"1"], False)
        (rendering.freeze if moves else rendering.release)()
        assert rendering.frames == ([b"1"] if moves else [b"1", b"2"])
        assert (rendering.is_complete, rendering.is_frozen) == (not moves, moves)
