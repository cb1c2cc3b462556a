"""The errors by which `MemoryGuard` refuses a model or request that does not fit into memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlx_server.engine.errors import EngineError, InsufficientMemory
from mlx_server.engine.memory.ledger import GIB, MIB, Ledger, Need, Never, Wait


@dataclass(frozen=True)
class RefusalWords:
    """The words of a refusal: the subject that does not fit, the remedy, and figures for programs."""

    what: str
    remedy: str
    figures: dict[str, int] = field(default_factory=dict)


class MustWait(Exception):
    """The need does not fit now.

    `refusal` is the error if waiting does not help. `held_by_requests` is True if running requests hold what
    is lacking.
    """

    def __init__(self, refusal: EngineError, *, held_by_requests: bool) -> None:
        super().__init__(str(refusal))
        self.refusal, self.held_by_requests = refusal, held_by_requests


def refusal(decision: Wait | Never, ledger: Ledger, need: Need, ask: RefusalWords) -> InsufficientMemory:
    """Return the error, such as `… needs 41.2 GiB of memory, 18.0 GiB free of 24.0 GiB; …`."""
    total, limit = ledger.reading.total_bytes, ledger.limit_bytes
    needs = decision.needs_bytes if isinstance(decision, Never) else need.bytes
    free = max(min(decision.free_bytes, limit), 0)
    bound = "" if limit >= total else f", of which the models may have {size(limit)}"
    figures = f"{ask.what} needs {size(needs)} of memory, {size(free)} free of {size(total)}{bound}"
    fields = {"needs_bytes": needs, "free_bytes": free, "limit_bytes": limit, "total_bytes": total}
    if isinstance(decision, Never):
        return InsufficientMemory(f"{figures}; {ask.remedy}.", retryable=False, **ask.figures, **fields)
    holder = f"requests to {', '.join(decision.busy)} hold" if decision.busy else "other programs hold"
    message = f"{figures}; {holder} the rest: try again later, or {ask.remedy}."
    return InsufficientMemory(message, retryable=True, **ask.figures, **fields)


def size(count: int) -> str:
    """Return `41.2 GiB` or `640 MiB`: powers of 1024, as operating systems report memory."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
