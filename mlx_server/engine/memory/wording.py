"""Figures of memory in words. Pure."""

from __future__ import annotations

from mlx_server.engine.memory.ledger import GIB, MIB


def size(count: int) -> str:
    """`41.2 GiB`, `640 MiB`: powers of 1024, as the system tells memory. Less than nothing is nothing."""
    count = max(count, 0)
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def needs(what: str, needs_bytes: int, free_bytes: int, limit_bytes: int, total_bytes: int) -> str:
    """The sentence's first half: what is asked for, and what there is."""
    limit = "" if limit_bytes >= total_bytes else f", of which the models may have {size(limit_bytes)}"
    free = f"{size(min(free_bytes, limit_bytes))} free of {size(total_bytes)}"
    return f"{what} needs {size(needs_bytes)} of memory, {free}{limit}"


def listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
