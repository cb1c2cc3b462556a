"""Extend, as answers grow, the memory that is reserved for the keys and values of answers whose length the
client does not limit.
"""

from __future__ import annotations

from collections.abc import Iterable

from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.log import log_event
from mlx_server.engine.memory.guard import MemoryGuard


def extend_kv_reservations(model: str, generations: Iterable[Generation], guard: MemoryGuard) -> None:
    """Extend the reservations for keys and values that are nearly used up. A generation whose reservation is
    used up and cannot grow ends with its next token (reason `length`).
    """
    for generation in generations:
        tokens = len(generation.prompt) + generation.completion_tokens
        most_tokens = len(generation.prompt) + generation.limit_tokens
        if most_tokens <= tokens + 1 or guard.extend_reservation(model, generation.id, tokens, most_tokens):
            continue
        generation.limit_tokens = generation.completion_tokens + 1
        cause = f"no memory for more than {tokens} tokens just now"
        log_event("answer_cut_short", cause=cause, id=generation.id, model=model)
