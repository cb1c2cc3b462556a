"""Define which cases are simulated, and the figures of each. All functions depend only on parameters and
seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from benchmarks.figures import percentile
from benchmarks.scale.fleet import Fleet, FleetSettings
from benchmarks.scale.parameters import Parameters
from benchmarks.scale.routing import Alone, FewestRequests, Placement, RoundRobin, Routing
from benchmarks.scale.workers import Workers

MACHINES = (1, 10, 100)
LOADS = (50, 100, 150)
"""Numbers of conversations that begin per hour and machine."""
PLOTTED_LOADS = (25, 50, 75, 100, 125, 150, 175, 200, 225)
WARM_UP_S, MEASURED_S = 600.0, 1800.0
ALONE_MEASURED_S = 36_000.0
"""How many seconds a single machine is simulated. It is longer, because few requests arrive at one
machine.
"""
FAILURE_LOAD, FAILURE_MACHINE_S = 125, 360_000.0
"""The conversations per hour and machine, and the simulated seconds of all machines together: a single
machine is simulated for 100 hours, each of 100 machines for one.
"""
WORKERS_S, SHARE_OF_CALLS, WORKER_DIES_EVERY_S = 3600.0, 0.7, 3600.0

Make = Callable[[int, Parameters], Routing]


def _vestal(machines: int, parameters: Parameters) -> Routing:
    return Placement(machines, parameters.load.bytes_per_token)


def _one_entry(machines: int, parameters: Parameters) -> Routing:
    return Placement(machines, parameters.load.bytes_per_token, one_entry=True)


ROUTINGS: dict[str, Make] = {
    "each its own": lambda machines, parameters: Alone(),
    "round robin": lambda machines, parameters: RoundRobin(),
    "fewest requests": lambda machines, parameters: FewestRequests(),
    "Vestal": _vestal,
    "Vestal, one entry": _one_entry,
}


@dataclass(frozen=True)
class Served:
    """How a fleet of `machines` served a load. `per_hour` conversations began per hour for each machine, and
    `routing` is the name of the routing rule in ROUTINGS. `requests` is how many requests were counted;
    `p50_s` and `p95_s` are the median and the 95th percentile of their seconds to the first token.

    `computed_share` is the share of prompt tokens that were computed instead of taken from a cache,
    `moved_share` the share of requests that were passed on to another machine.
    """

    machines: int
    routing: str
    per_hour: int
    requests: int
    p50_s: float
    p95_s: float
    computed_share: float
    moved_share: float


@dataclass(frozen=True)
class Survived:
    """The effects of deaths of engines and machines on the answers of a fleet. `requests` is the number of
    all requests of the simulation.

    `cut_off` answers lost their engine or machine. Of these, `continued` went on elsewhere or with a new
    engine, `waited` went on when their machine was back, and `began_again` were generated anew.
    `pause_p50_s` and `pause_p95_s` are the median and the 95th percentile of the seconds from a death until
    an answer that it cut off went on or began again. `most_taken_over` is the largest number of answers that
    one machine took over.
    """

    machines: int
    routing: str
    requests: int
    cut_off: int
    continued: int
    waited: int
    began_again: int
    pause_p50_s: float
    pause_p95_s: float
    most_taken_over: int


@dataclass(frozen=True)
class Worked:
    """The figures of workers that share one Postgres server as the queue of their tasks. The workers die from
    time to time.

    `repeated_calls_share` is how many model calls were made again after a death, divided by how many calls
    the tasks need. `taken_over` is how many tasks lost their worker by its death and were continued by a
    worker later. `pause_p50_s` and `pause_max_s` are the median and the longest of these interruptions, each
    from the death until a worker takes the task up.

    `postgres_rest_share` is the share of its one core (0 to 1) that Postgres uses while all workers are idle,
    and `postgres_share` the share that it uses while they have tasks. `connections` is how many connections
    to Postgres all workers together have while they are idle, and `connections_busy` the most that they have
    while they have tasks.
    """

    workers: int
    tasks: int
    tasks_per_hour: int
    repeated_calls_share: float
    taken_over: int
    pause_p50_s: float
    pause_max_s: float
    postgres_rest_share: float
    postgres_share: float
    connections: int
    connections_busy: int


def served(parameters: Parameters, machines: int, routing: str, per_hour: int, seed: int = 1) -> Served:
    """Simulate `machines` machines without failures, and return the figures. `routing` is the name of a rule
    in ROUTINGS; `per_hour` conversations per hour begin for each machine.

    Requests that arrive while the prompt caches fill, in the first WARM_UP_S seconds, are not counted.
    """
    measured_s = ALONE_MEASURED_S if machines == 1 else MEASURED_S
    settings = FleetSettings(machines, per_hour, WARM_UP_S + measured_s, seed)
    fleet = Fleet(parameters, settings, ROUTINGS[routing](machines, parameters))
    fleet.run()
    turns = [turn for turn in fleet.turns if turn.arrived_at >= WARM_UP_S]
    waits = [turn.first_token_at - turn.arrived_at for turn in turns if turn.first_token_at is not None]
    computed = sum(turn.computed_tokens for turn in turns) / sum(turn.prompt_tokens for turn in turns)
    moved = sum(turn.is_passed_on for turn in turns) / len(turns)
    figures = (
        round(figure, 3) for figure in (percentile(waits, 0.5), percentile(waits, 0.95), computed, moved)
    )
    return Served(machines, routing, per_hour, len(turns), *figures)


def survived(
    parameters: Parameters, machines: int, *, take_over: bool, rotated: bool, seed: int = 1
) -> Survived:
    """Simulate 100 machine-hours in which engines and machines die. Return how many answers the deaths cut
    off, and how these answers were completed.

    With `take_over`, each request goes to the machine that Vestal's rule chooses (`Placement` in
    `routing.py`). If a machine dies, another machine continues its answers. Without `take_over`, a balancer
    assigns requests to the machines round robin, and clients of a dead machine send their requests again.

    The machine that continues an answer is the one that passed the request on to the dead machine. If no
    machine had passed it on, it is the first living machine in the dead machine's list of peers. If none can
    continue the answer, it waits for the dead machine's return. With `rotated`, each machine's list of peers
    begins with the machine after it; without it, all lists have the same order.
    """
    settings = FleetSettings(
        machines, FAILURE_LOAD, FAILURE_MACHINE_S / machines, seed, has_failures=True, rotated=rotated
    )
    name = "Vestal" if take_over else "round robin"
    fleet = Fleet(parameters, settings, ROUTINGS[name](machines, parameters))
    fleet.run()
    pauses = [pause for turn in fleet.turns for pause in turn.pauses_s]
    began_again = sum(turn.began_again > 0 for turn in fleet.turns)
    waited = sum(turn.has_waited for turn in fleet.turns)
    cut_off = sum(turn.was_cut_off for turn in fleet.turns)
    return Survived(
        machines,
        f"{name}, peers in another order on each" if rotated else name,
        len(fleet.turns),
        cut_off,
        cut_off - began_again - waited,
        waited,
        began_again,
        round(percentile(pauses or [0.0], 0.5), 2),
        round(percentile(pauses or [0.0], 0.95), 2),
        max(fleet.taken_over),
    )


def worked(parameters: Parameters, count: int, seed: int = 1) -> Worked:
    """Simulate `count` workers and an hour in which tasks arrive for them. Return the figures. Each worker
    dies about once in this hour.

    All workers together can make a limited number of model calls at the same time. The tasks arrive at a rate
    that uses 70 % of these calls.
    """
    given = parameters.workers
    workers = Workers(
        given,
        count,
        share_of_calls=SHARE_OF_CALLS,
        seconds=WORKERS_S,
        dies_every_s=WORKER_DIES_EVERY_S,
        seed=seed,
    )
    workers.run()
    pauses = [pause for task in workers.tasks for pause in task.pauses_s]
    calls = sum(task.calls for task in workers.tasks)
    return Worked(
        count,
        len(workers.tasks),
        round(len(workers.tasks) * 3600 / workers.loop.now),
        round(calls / (len(workers.tasks) * given.calls_per_task) - 1, 4),
        sum(len(task.pauses_s) > 0 for task in workers.tasks),
        round(percentile(pauses or [0.0], 0.5), 1),
        round(max(pauses, default=0.0), 1),
        round(workers.rest_share, 4),
        round(workers.postgres_share, 4),
        count * given.connections,
        count * given.connections_busy,
    )


def all_figures(parameters: Parameters, say: Callable[[str], None]) -> dict[str, object]:
    """Simulate every case, and return the figures as a JSON object. `say` is called with a line about the
    progress.
    """
    found: dict[str, object] = {"parameters": parameters.digest}
    rows = []
    for machines in MACHINES:
        for routing in ROUTINGS:
            loads = sorted({*LOADS, *PLOTTED_LOADS}) if machines == 10 else LOADS
            for per_hour in loads:
                rows.append(asdict(served(parameters, machines, routing, per_hour)))
                say(f"{machines} machines, {routing}, {per_hour} an hour: {rows[-1]['p95_s']:.1f} s")
    found["served"] = rows
    found["survived"] = [
        asdict(survived(parameters, machines, take_over=take_over, rotated=rotated))
        for machines in MACHINES
        for take_over, rotated in ((False, False), (True, False), (True, True))
        if machines > 1 or not rotated
    ]
    say("deaths are simulated")
    found["worked"] = [asdict(worked(parameters, count)) for count in MACHINES]
    return found
