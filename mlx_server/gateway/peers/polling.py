"""The state of the peers. Each peer is asked for its /health every second, and less often while it is
dead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from mlx_server.gateway.peers.machine_choice import Machine
from mlx_server.gateway.peers.peer import Peer
from vestal.supervision import Clock

POLL_S = 1.0
MOST_POLL_S = 8.0
MISSES_TO_BE_DEAD, SILENCE_TO_BE_DEAD_S = 3, 5.0
"""A peer counts as dead if it has missed this many polls in a row and been silent for this many seconds. A
peer that is only busy may answer late."""
SERVED = frozenset({"ok", "starting", "recovering"})
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
log = logging.getLogger(__name__)


class _Requests(msgspec.Struct):
    running: Count = 0
    queued: Count = 0
    parked: Count = 0
    slots: Count = 0


class _Health(msgspec.Struct):
    """The fields of a gateway's /health that other gateways read; all its other fields are ignored.
    `instance` identifies the gateway process. `requests` says how many requests the gateway has in each
    state, and how many it can run at once (`slots`).
    """

    status: str
    instance: str = ""
    requests: _Requests = msgspec.field(default_factory=_Requests)


class PeerState:
    """The state of one peer, from its last answers. Times are monotonic seconds.

    `own_instance` is the `instance` that this gateway's /health shows. `is_this_gateway` is True if the
    settings name this gateway among its own peers. `is_dead` is True if the peer has not answered for some
    time. `sent` counts the requests that were passed to the peer since its last answer. `is_error_logged` is
    True if an unforeseen error of a poll is in the log.
    """

    def __init__(self, now: float, own_instance: str = "") -> None:
        self.is_this_gateway = False
        self._own_instance = own_instance
        self.seen_at = now
        self.misses = 0
        self.is_dead = False
        self.sent = 0
        self.is_error_logged = False
        self._health: _Health | None = None

    @property
    def is_living(self) -> bool:
        """Return whether the peer answers, and is not this gateway itself."""
        return self._health is not None and not (self.is_dead or self.is_this_gateway)

    @property
    def next_poll_s(self) -> float:
        """Return the pause before the next poll of the peer, in seconds: normally POLL_S. After
        MISSES_TO_BE_DEAD missed polls in a row, each further one doubles the pause, up to MOST_POLL_S.
        """
        return min(POLL_S * 2 ** min(max(0, self.misses - MISSES_TO_BE_DEAD), 10), MOST_POLL_S)

    def heard(self, body: Mapping[str, Any] | None, now: float) -> None:
        """Record at `now` the body of the peer's /health; None if no body came. A body that is not that of a
        gateway's /health counts as none.
        """
        health = _health_in(body)
        if health is None:
            self.misses += 1
            is_silent = now - self.seen_at >= SILENCE_TO_BE_DEAD_S
            self.is_dead = self.misses >= MISSES_TO_BE_DEAD and is_silent
        else:
            self.misses, self.seen_at, self.is_dead, self._health = 0, now, False, health
            self.sent = 0
            self.is_this_gateway = bool(self._own_instance) and health.instance == self._own_instance

    def machine(self, url: str, prefix_bytes: int = 0) -> Machine:
        """Return the state and load of the peer, by which `machine_choice` chooses a machine for a request.
        `prefix_bytes` is how much of the request's conversation the peer has computed.
        """
        if self._health is None or not self.is_living:
            return Machine(url, serves=False)
        requests = self._health.requests
        return Machine(
            url,
            serves=self._health.status in SERVED,
            running=requests.running + self.sent,
            waiting=requests.queued + requests.parked,
            slots=requests.slots if self._health.status == "ok" else 0,
            prefix_bytes=prefix_bytes,
        )


def _health_in(body: Mapping[str, Any] | None) -> _Health | None:
    try:
        return msgspec.convert(body, _Health | None)
    except msgspec.ValidationError:
        return None


Heard = Callable[[dict[str, Any] | None], None]
"""A function that is called with the body of a peer's /health, or with None if no body came."""


async def ask(peer: Peer, state: PeerState, heard: Heard, clock: Clock) -> None:
    """Ask `peer` once for its /health, and call the function `heard` with the body, or with None if no body
    came. This function must record the result in `state`, by `state.heard`.

    If the request or the function `heard` fails with an unforeseen error, `ask` itself records in `state`
    that no body came, at the present time of `clock`. Such an error is logged once for each peer and not
    raised, so that no answer of a peer ends the polling or the start of the gateway.
    """
    try:
        heard(await peer.health())
    except Exception:
        state.heard(None, clock.now())
        if not state.is_error_logged:
            state.is_error_logged = True
            log.exception("The peer %s could not be asked for its health", peer.url)


async def poll(peer: Peer, state: PeerState, heard: Heard, clock: Clock) -> None:
    """Ask the peer for its /health again and again, until cancelled. Call the function `heard` with each
    body, or with None if no body came. This function must record the result in `state`, by `state.heard`,
    because `state` determines the pause before the next request.
    """
    while True:
        await clock.sleep(state.next_poll_s)
        await ask(peer, state, heard, clock)


async def wait_until_dead(state: PeerState, clock: Clock, after_s: float) -> None:
    """Wait until the peer counts as dead in `state`, because it has missed several polls in a row, and until
    at least `after_s` seconds have passed since the last poll that it answered.
    """
    while not state.is_dead or clock.now() - state.seen_at < after_s:
        await clock.sleep(POLL_S)
