"""What a pass can do for MLX and Ollama, told to whoever asks for one. Pure (decision 13)."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from host_agent.services.service_status import ServiceStatus
from vestal.supervision import State

SOON_S = 5
COMING = frozenset({State.STARTING, State.STOPPING, State.BACKOFF})
GIVEN_UP = frozenset({State.OPEN, State.FAILED})


class RetryAdvice(StrEnum):
    """Why a pass will not bring it up now. What has none is well, or is for the pass to heal."""

    RECOVERING = "recovering"  # its supervisor is at it already
    OPEN = "open"  # given up for now: a breaker is open
    MANUAL_STOP = "manual_stop"  # a person stopped it, and nobody has started it since


ASK_AGAIN_S = {RetryAdvice.RECOVERING: 10, RetryAdvice.OPEN: 60, RetryAdvice.MANUAL_STOP: 300}


def of(row: ServiceStatus, by_hand: bool) -> RetryAdvice | None:
    """How it stands with one service. `by_hand`: a person stopped it."""
    if row.well:
        return None
    if by_hand:
        return RetryAdvice.MANUAL_STOP
    if row.state in GIVEN_UP:
        return RetryAdvice.OPEN
    return RetryAdvice.RECOVERING if row.state in COMING else None


def of_mlx(server: ServiceStatus, engine: ServiceStatus, by_hand: bool) -> RetryAdvice | None:
    """A gateway that lives may have given its engine up, or be waiting for it."""
    return of(server, by_hand) or of(engine, by_hand=False)


def retry_after_s(outlooks: Mapping[str, RetryAdvice], down: Iterable[str]) -> int:
    """When to ask again: as soon as is worth it for any of those that were reported `down`."""
    waits = [ASK_AGAIN_S[outlooks[name]] if name in outlooks else SOON_S for name in down]
    return min(waits, default=SOON_S)
