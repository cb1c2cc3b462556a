"""Answers without a limit, as they outgrow what they were promised. Lives in the MLX thread."""

from __future__ import annotations

from mlx_server.engine.log import log_event
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.scheduling.loaded_models import LoadedModel
from mlx_server.engine.scheduling.text_runner import TextRunner


def keep_up(held: LoadedModel, guard: MemoryGuard) -> None:
    """End those that memory has no room for any more, as if their context were at its end."""
    if not isinstance(held.runner, TextRunner):
        return
    for generation in held.runner.generations():
        tokens = len(generation.prompt) + generation.count
        most = len(generation.prompt) + generation.limit_tokens
        if most > tokens + 1 and not guard.keep_up(held.entry.name, generation.id, tokens, most):
            generation.limit_tokens = generation.count + 1
            cause = f"no memory for more than {tokens} tokens just now"
            log_event("answer_cut_short", cause=cause, id=generation.id, model=held.entry.name)
