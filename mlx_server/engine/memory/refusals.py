"""The errors by which `MemoryGuard` refuses a model or request that does not fit into memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlx_server.engine.errors import EngineError, InsufficientMemory
from mlx_server.engine.memory.ledger import Ledger, Need, Never, Wait
from vestal.config.units import format_size


@dataclass(frozen=True)
class RefusalWords:
    """The parts of an error message about lacking memory: what does not fit (`what`) and what the client can
    do (`remedy`). `figures` are numbers that the error contains as fields, for programs.
    """

    what: str
    remedy: str
    figures: dict[str, int] = field(default_factory=dict)


def request_words(model: str, prompt_tokens: int, answer_tokens: int, tower_bytes: int = 0) -> RefusalWords:
    """Return the parts of the message that refuses a request with this many tokens of prompt and at most this
    many of answer. `tower_bytes` is the memory that the vision tower needs for the request's images; 0 if the
    request has no images.
    """
    figures = {"prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens}
    what = f"A request to {model} with {prompt_tokens} prompt tokens and up to {answer_tokens} of answer"
    remedy = "shorten the prompt, ask for fewer tokens (max_tokens), or send fewer requests at once"
    if not tower_bytes:
        return RefusalWords(what, remedy, figures)
    what += f", which takes {format_size(tower_bytes)} to read its largest image,"
    remedy = f"send smaller images or take another model, {remedy}"
    return RefusalWords(what, remedy, figures | {"image_bytes": tower_bytes})


class MustWait(Exception):
    """Raised if a model or request does not fit into memory at this time, but may fit later.

    `refusal` is the error for the client if waiting does not help. `held_by_requests` is True if running
    requests hold the lacking memory.
    """

    def __init__(self, refusal: EngineError, *, held_by_requests: bool) -> None:
        super().__init__(str(refusal))
        self.refusal, self.held_by_requests = refusal, held_by_requests


def refusal(decision: Wait | Never, ledger: Ledger, need: Need, ask: RefusalWords) -> InsufficientMemory:
    """Return the error for a need that must wait or can never be met, as `decision` says; `ask` has the words
    for the model or request that needs memory. The error's text is like `… needs 41.2 GiB of memory, 18.0 GiB
    free of 24.0 GiB; …`.
    """
    total, limit = ledger.reading.total_bytes, ledger.limit_bytes
    needs = decision.needs_bytes if isinstance(decision, Never) else need.bytes
    free = max(min(decision.free_bytes, limit), 0)
    bound = "" if limit >= total else f", of which the models may have {format_size(limit)}"
    needed = f"{ask.what} needs {format_size(needs)} of memory"
    figures = f"{needed}, {format_size(free)} free of {format_size(total)}{bound}"
    fields = {"needs_bytes": needs, "free_bytes": free, "limit_bytes": limit, "total_bytes": total}
    if isinstance(decision, Never):
        return InsufficientMemory(f"{figures}; {ask.remedy}.", retryable=False, **ask.figures, **fields)
    holder = f"requests to {', '.join(decision.busy)} hold" if decision.busy else "other programs hold"
    message = f"{figures}; {holder} the rest: try again later, or {ask.remedy}."
    return InsufficientMemory(message, retryable=True, **ask.figures, **fields)
