"""Advice for the callers of POST /recover: why a recovery pass will not start MLX or Ollama now, and when to
retry. Pure.

See docs/decisions/0013-recover-names-services-it-cannot-start.md.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from host_agent.services.service_status import ServiceStatus
from vestal.supervision import State

SOON_S = 5
IN_TRANSITION = frozenset({State.STARTING, State.STOPPING, State.BACKOFF})
GIVEN_UP = frozenset({State.OPEN, State.FAILED})


class RetryAdvice(StrEnum):
    """The reason why a recovery pass will not start a server now."""

    RECOVERING = "recovering"  # its supervisor is already restarting it
    OPEN = "open"  # its breaker is open, or it was given up
    MANUAL_STOP = "manual_stop"  # a person stopped it, and nobody has started it since


RETRY_AFTER_S = {RetryAdvice.RECOVERING: 10, RetryAdvice.OPEN: 60, RetryAdvice.MANUAL_STOP: 300}


def for_service(status: ServiceStatus, stopped_by_hand: bool) -> RetryAdvice | None:
    """Return the reason why a recovery pass (one run of checks and repairs) will not start this service now;
    None if the service is healthy or a pass can start it. `stopped_by_hand` is True if a person stopped the
    service and nobody has started it since.
    """
    if status.healthy:
        return None
    if stopped_by_hand:
        return RetryAdvice.MANUAL_STOP
    if status.state in GIVEN_UP:
        return RetryAdvice.OPEN
    return RetryAdvice.RECOVERING if status.state in IN_TRANSITION else None


def for_mlx(gateway: ServiceStatus, engine: ServiceStatus, stopped_by_hand: bool) -> RetryAdvice | None:
    """Return the reason why a recovery pass (one run of checks and repairs) will not start the MLX server
    now; None if the server is healthy or a pass can start it. The reason may lie in the engine, because a
    healthy gateway may have given up its engine. `stopped_by_hand` is True if a person stopped the gateway.
    """
    return for_service(gateway, stopped_by_hand) or for_service(engine, stopped_by_hand=False)


def retry_after_s(advice: Mapping[str, RetryAdvice], down: Iterable[str]) -> int:
    """Return after how many seconds a caller should ask again: the shortest delay of the servers in `down`.
    The delay of a server follows from its entry in `advice`; without an entry it is SOON_S.
    """
    waits = [RETRY_AFTER_S[advice[name]] if name in advice else SOON_S for name in down]
    return min(waits, default=SOON_S)
