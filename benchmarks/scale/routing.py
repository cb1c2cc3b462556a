"""Choose the machine for a turn, which is one request of a conversation: by the rule of Vestal's gateways, or
by a balancer in front of machines that share nothing.

`Placement` simulates what each gateway knows about its peers, and uses the code of
`mlx_server/gateway/peers`: `machine_for` chooses the machine, `PrefixMemory` remembers which machine has
computed which beginnings of conversations, and `PeerState` derives the peers' load from a /health that is up
to a second old. The exchanges between gateways are simulated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from benchmarks.scale.engine import Engine
from benchmarks.scale.workload import Turn, asked_of
from mlx_server.gateway.peers.conversation import PrefixMemory
from mlx_server.gateway.peers.machine_choice import HERE, Machine, machine_for
from mlx_server.gateway.peers.others import AFTER_REFUSAL_S
from mlx_server.gateway.peers.peer import OFFER_S
from mlx_server.gateway.peers.polling import POLL_S, PeerState


class Node(Protocol):
    """A machine as a routing rule sees it. `engine` is its simulated engine. `health` is what its /health
    answered when it was last asked, at the simulated time `looked_at`.
    """

    number: int
    is_alive: bool
    engine: Engine
    health: dict[str, object]
    looked_at: float


class Routing(Protocol):
    """A rule that chooses the machine for each turn. `has_take_over` says whether other machines continue the
    turns of a dead one.
    """

    has_take_over: bool

    def entry(self, turn: Turn, nodes: Sequence[Node]) -> int:
        """Return the number of the machine to which the client connects, which is alive. Raises ValueError if
        no machine is alive.
        """
        ...

    def place(self, turn: Turn, entry: int, nodes: Sequence[Node], now: float) -> tuple[int, float]:
        """Choose the machine that serves a turn, which a client has sent to the machine with the number
        `entry`. Return the chosen machine's number, and the seconds until the turn arrives there.
        """
        ...


def _next_alive(nodes: Sequence[Node], start: int) -> int:
    """Return the first living machine from the number `start` on, beginning again at 0. Raises ValueError if
    no machine is alive.
    """
    order = ((start + step) % len(nodes) for step in range(len(nodes)))
    found = next((number for number in order if nodes[number].is_alive), None)
    if found is None:
        raise ValueError("no machine is alive")
    return found


class Alone:
    """Each client has a machine of its own, and the machines know nothing of each other. If the machine is
    dead, the client uses the next living one.
    """

    has_take_over = False

    def entry(self, turn: Turn, nodes: Sequence[Node]) -> int:
        return _next_alive(nodes, turn.conversation.home)

    def place(self, turn: Turn, entry: int, nodes: Sequence[Node], now: float) -> tuple[int, float]:
        return entry, 0.0


class RoundRobin(Alone):
    """A balancer that sends each request to the next living machine. It learns at once if a machine dies."""

    def __init__(self) -> None:
        self._last = -1

    def entry(self, turn: Turn, nodes: Sequence[Node]) -> int:
        self._last = _next_alive(nodes, self._last + 1)
        return self._last


class FewestRequests(Alone):
    """A balancer sends each request to the living machine with the fewest requests; machines with equally
    many take turns.
    """

    def __init__(self) -> None:
        self._last = -1

    def entry(self, turn: Turn, nodes: Sequence[Node]) -> int:
        start, count = self._last + 1, len(nodes)
        alive = [number for number in range(count) if nodes[number].is_alive]
        if not alive:
            raise ValueError("no machine is alive")

        def load(number: int) -> tuple[int, int]:
            engine = nodes[number].engine
            return len(engine.jobs) + len(engine.waiting), (number - start) % count

        self._last = min(alive, key=load)
        return self._last


class Placement:
    """Routes turns by the rule of Vestal's gateways. They prefer free machines, and among these one that has
    already computed much of the conversation. If no machine is free, they prefer a short queue.
    `bytes_per_token` is the length of a token's text, because gateways measure conversations in bytes.

    By default, each client sends its turns to the gateway of its own machine; with `one_entry`, all clients
    send them to the first machine's gateway. If that machine is dead, the next living one gets them.
    """

    has_take_over = True

    def __init__(self, machines: int, bytes_per_token: int, *, one_entry: bool = False) -> None:
        self._bytes_per_token = bytes_per_token
        self._one_entry = one_entry
        self._gateways = [_Gateway(number, machines) for number in range(machines)]

    def entry(self, turn: Turn, nodes: Sequence[Node]) -> int:
        return _next_alive(nodes, 0 if self._one_entry else turn.conversation.home)

    def place(self, turn: Turn, entry: int, nodes: Sequence[Node], now: float) -> tuple[int, float]:
        return self._gateways[entry].place(turn, nodes, now, self._bytes_per_token)


class _Gateway:
    """Simulates one machine's gateway: what it knows about its peers from polls, refusals and earlier
    conversations, and to which machine it therefore sends a request. The rules are those of real gateways, in
    `mlx_server/gateway/peers/others.py`.
    """

    def __init__(self, number: int, machines: int) -> None:
        self._number = number
        self._peers = {str(peer): PeerState(0.0) for peer in range(machines) if peer != number}
        self._heard_at = dict.fromkeys(self._peers, -1.0)
        self._refused = dict.fromkeys(self._peers, -math.inf)
        self._memory = PrefixMemory()

    def place(self, turn: Turn, nodes: Sequence[Node], now: float, bytes_per_token: int) -> tuple[int, float]:
        asked = asked_of(turn, bytes_per_token)
        delay_s = 0.0
        if self._peers:
            known = self._memory.prefix_bytes(asked, (HERE, *self._peers))
            here = _here(nodes[self._number], known[HERE])
            url = machine_for(here, self._machines(nodes, known, now))
            if url != HERE and nodes[int(url)].is_alive:
                self._peers[url].sent += 1
                self._memory.note(asked, url)
                return int(url), 0.0
            if url != HERE:  # it has just died and does not answer, so the request runs here
                self._refused[url] = now
                delay_s = OFFER_S
        self._memory.note(asked, HERE)
        return self._number, delay_s

    def _machines(self, nodes: Sequence[Node], known: dict[str, int], now: float) -> list[Machine]:
        machines = []
        for url, state in self._peers.items():
            self._hear(url, state, nodes[int(url)], now)
            if now - self._refused[url] > AFTER_REFUSAL_S:
                machines.append(state.machine(url, known[url]))
        return machines

    def _hear(self, url: str, state: PeerState, node: Node, now: float) -> None:
        """Update `state`, which is what this gateway knows about a peer, with the polls of that peer since
        the last call of this method, both answered and missed ones. `node` is the peer's simulated machine,
        and `url` the machine's number as text, which serves as the peer's URL.
        """
        if node.looked_at > self._heard_at[url]:
            self._heard_at[url] = node.looked_at
            state.heard(node.health, node.looked_at)
        while not state.is_dead and state.seen_at + (state.misses + 1) * POLL_S < now - POLL_S:
            state.heard(None, state.seen_at + (state.misses + 1) * POLL_S)


def _here(node: Node, prefix_bytes: int) -> Machine:
    engine = node.engine
    slots = node.health["requests"]["slots"] if engine.is_up else 0  # type: ignore[index]
    return Machine(HERE, True, len(engine.jobs), len(engine.waiting), slots, prefix_bytes)
