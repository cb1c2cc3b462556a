"""Simulate a fleet of machines under a load: arrivals, placement, deaths of engines and machines, and
take-overs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from benchmarks.scale.engine import Engine
from benchmarks.scale.events import EventLoop
from benchmarks.scale.parameters import Parameters
from benchmarks.scale.routing import Routing
from benchmarks.scale.workload import Conversation, Turn, Workload
from mlx_server.gateway.peers.mirroring import DEAD_AFTER_S, MIRROR_S
from mlx_server.gateway.peers.polling import POLL_S

RETRY_S = 1.0


@dataclass(eq=False)
class MachineNode:
    """A simulated machine. `slots` is how many requests its engine runs at the same time; `back_at` is when a
    dead machine returns.

    `health` is the machine's last answer to /health, at the time `looked_at`.
    """

    number: int
    engine: Engine
    slots: int
    is_alive: bool = True
    back_at: float = 0.0
    looked_at: float = 0.0
    health: dict[str, object] = field(default_factory=dict)

    def look(self, now: float) -> None:
        """Store in `health` what the machine's /health would answer at the time `now`."""
        engine = self.engine
        requests = {
            "running": len(engine.jobs),
            "queued": len(engine.waiting),
            "parked": 0,
            "slots": self.slots,
        }
        self.health = {"status": "ok" if engine.is_up else "recovering", "requests": requests}
        self.looked_at = now


@dataclass
class FleetSettings:
    """The settings of a simulation. `per_hour` is how many conversations begin per hour and machine.

    With `rotated`, each machine's list of peers begins with the machine after it; without it, every list
    begins with the first machine.
    """

    machines: int
    per_hour: float
    seconds: float
    seed: int = 1
    has_failures: bool = False
    rotated: bool = False


class Fleet:
    """Simulates a fleet of machines that serve conversations. `settings` holds the size of the simulation,
    and `parameters` the assumptions about machines, load and failures. `routing` chooses the machine for each
    request. When `run` returns, `turns` has all requests, each finished.
    """

    def __init__(self, parameters: Parameters, settings: FleetSettings, routing: Routing) -> None:
        self.loop = EventLoop()
        self.turns: list[Turn] = []
        self.turn_seconds = 0.0
        self.in_system = 0
        self._counted_at = 0.0
        self._parameters = parameters
        self._settings = settings
        self._routing = routing
        self._workload = Workload(parameters.load, settings.machines, settings.per_hour, settings.seed)
        self._draw = random.Random(f"failures {settings.seed}")
        self.taken_over = [0] * settings.machines
        self.nodes = [
            MachineNode(number, Engine(self.loop, parameters.engine, self._finished), parameters.engine.slots)
            for number in range(settings.machines)
        ]
        self._unfinished_conversations = 0
        engine = parameters.engine
        self._lag_tokens = MIRROR_S / engine.step_for(engine.slots)

    def run(self) -> None:
        """Simulate until every conversation that began within the simulated seconds is over."""
        for at, conversation in self._workload.arrivals(self._settings.seconds):
            self._unfinished_conversations += 1
            self.loop.at(at, lambda one=conversation: self._arrive(one))  # type: ignore[misc]
        for node in self.nodes:
            node.look(0.0)
            self._look(node, self._draw.random() * POLL_S)
            if self._settings.has_failures:
                self._plan_deaths(node)
        self.loop.run(lambda: self._unfinished_conversations > 0)
        self._count(0)

    # --- requests ---

    def _arrive(self, conversation: Conversation) -> None:
        turn = self._workload.turn(conversation, self.loop.now)
        self.turns.append(turn)
        self._count(1)
        self._send(turn)

    def _send(self, turn: Turn) -> None:
        try:
            entry = self._routing.entry(turn, self.nodes)
        except ValueError:  # all machines are away: the client tries again
            self.loop.after(RETRY_S, lambda: self._send(turn))
            return
        turn.origin = entry
        target, delay_s = self._routing.place(turn, entry, self.nodes, self.loop.now)
        turn.is_passed_on = target != entry
        if delay_s:
            self.loop.after(delay_s, lambda: self._submit(turn, target))
        else:
            self._submit(turn, target)

    def _submit(self, turn: Turn, target: int) -> None:
        node = self.nodes[target]
        turn.placed_on = target
        if node.is_alive:
            node.engine.submit(turn)
        else:
            self._cut_off(turn, target)

    def _finished(self, turn: Turn) -> None:
        turn.finished_at = self.loop.now
        turn.finishes += 1
        self._count(-1)
        following = self._workload.next_turn(turn)
        if following is None:
            self._unfinished_conversations -= 1
        else:
            self.loop.after(self._workload.think_s(), lambda: self._arrive(following))

    def _count(self, change: int) -> None:
        self.turn_seconds += self.in_system * (self.loop.now - self._counted_at)
        self._counted_at = self.loop.now
        self.in_system += change

    def _look(self, node: MachineNode, delay_s: float) -> None:
        def look() -> None:
            if node.is_alive:
                node.look(self.loop.now)
            self._look(node, POLL_S)

        self.loop.after(delay_s, look)

    # --- failures ---

    def _plan_deaths(self, node: MachineNode) -> None:
        failures = self._parameters.failures
        self._plan_engine_death(node, self._draw.expovariate(1 / failures.engine_every_s))
        self.loop.after(
            self._draw.expovariate(1 / failures.machine_every_s), lambda: self._machine_dies(node)
        )

    def _plan_engine_death(self, node: MachineNode, delay_s: float) -> None:
        def die() -> None:
            if node.is_alive and node.engine.is_up:
                turns = node.engine.kill()
                for turn in turns:
                    if turn.given > 0:
                        self._note_cut(turn)
                self.loop.after(self._parameters.engine.restart_s, lambda: self._engine_starts(node, turns))
            every_s = self._parameters.failures.engine_every_s
            self._plan_engine_death(node, self._draw.expovariate(1 / every_s))

        self.loop.after(delay_s, die)

    def _engine_starts(self, node: MachineNode, turns: list[Turn]) -> None:
        if node.is_alive:
            node.engine.start(turns)
        else:  # the machine died meanwhile, and these turns with it
            for turn in turns:
                self._cut_off(turn, node.number)

    def _machine_dies(self, node: MachineNode) -> None:
        node.is_alive = False
        node.back_at = self.loop.now + self._parameters.failures.machine_back_s
        self.loop.at(node.back_at, lambda: self._machine_is_back(node))
        for turn in node.engine.kill():
            self._cut_off(turn, node.number)

    def _machine_is_back(self, node: MachineNode) -> None:
        node.is_alive = True
        node.engine.start()
        every_s = self._parameters.failures.machine_every_s
        self.loop.after(self._draw.expovariate(1 / every_s), lambda: self._machine_dies(node))

    def _cut_off(self, turn: Turn, dead: int) -> None:
        """Schedule the continuation of a turn whose machine, number `dead`, has died. It continues on a
        machine that has a copy of the turn's answer log or, if there is none, on the dead machine when that
        is back.

        If the routing rule has no take-over, machines do not continue each other's turns. The client then
        sends the request again, `client_back_s` seconds later.
        """
        self._note_cut(turn)
        if not self._routing.has_take_over:
            self.loop.after(self._parameters.failures.client_back_s, lambda: self._begin_again(turn))
            return
        holder = self._holder(turn, dead)
        if holder is None:
            self._wait_for(turn, dead)
        else:
            turn.given = max(0.0, turn.given - self._lag_tokens)
            self.loop.after(DEAD_AFTER_S, lambda: self._take_over(turn, holder))

    def _wait_for(self, turn: Turn, dead: int) -> None:
        """Schedule the continuation of the turn for the time when the dead machine, number `dead`, is back.
        The turn then continues on this machine, from the machine's answer log.
        """
        turn.has_waited = True
        self.loop.at(self.nodes[dead].back_at, lambda: self._submit(turn, dead))

    def _note_cut(self, turn: Turn) -> None:
        turn.was_cut_off = True
        if turn.cut_off_at is None:
            turn.cut_off_at = self.loop.now

    def _holder(self, turn: Turn, dead: int) -> int | None:
        """Return the number of the living machine that can continue `turn` after the machine `dead` died,
        because it has a copy of the turn's answer log (the tokens generated so far). Return None if there is
        no such machine.

        If `dead` had received the turn from another machine, only that other machine has a copy. Otherwise,
        the first living machine in `dead`'s list of peers has one. If the turn was already taken over earlier
        (`is_taken_over`), there is no copy, because its answer log is not copied a second time.
        """
        if turn.is_taken_over:  # its records are not copied to a third machine
            return None
        if turn.is_passed_on:
            return turn.origin if self.nodes[turn.origin].is_alive else None
        count = len(self.nodes)
        start = dead + 1 if self._settings.rotated else 0
        order = ((start + step) % count for step in range(count))
        return next((number for number in order if number != dead and self.nodes[number].is_alive), None)

    def _take_over(self, turn: Turn, holder: int) -> None:
        if not self.nodes[holder].is_alive:
            self._wait_for(turn, turn.placed_on)
            return
        self.taken_over[holder] += 1
        turn.is_taken_over = turn.origin != holder
        turn.origin, turn.is_passed_on = holder, False
        self._submit(turn, holder)

    def _begin_again(self, turn: Turn) -> None:
        """Make the simulated client send the request again, because no machine has the generated tokens."""
        turn.given, turn.is_taken_over = 0.0, False
        turn.began_again += 1
        self._send(turn)
