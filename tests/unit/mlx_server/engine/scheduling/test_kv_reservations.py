"""A generation whose KV reservation cannot grow ends as at the end of its context."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.engine.generation.detokenizer import Detokenizer
from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.scheduling.runners.kv_reservations import extend_kv_reservations
from mlx_server.protocol import Done


def generation(id: str) -> Generation:
    text = Detokenizer(lambda ids: "x" * len(ids), (), ())
    return Generation(id, (1, 2, 3), 100, frozenset(), text, 0.0)


@pytest.mark.parametrize("room_for", [10, 1000])
def test_answer_whose_kv_reservation_cannot_grow_ends_with_reason_length(room_for: int):
    guard: Any = SimpleNamespace(extend_reservation=lambda model, id, tokens, most: tokens < room_for)
    answer, events = generation("a"), []
    while answer.done is None:
        extend_kv_reservations("m", [answer], guard)
        events += answer.accept(7, 1.0)
    assert isinstance(events[-1], Done)
    assert events[-1].reason == "length"
    assert events[-1].usage.completion_tokens == min(room_for - 3 + 1, 100)
