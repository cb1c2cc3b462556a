"""Plan, from a seed, which processes are killed and when the stack is upgraded during the load."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

ENGINE, GATEWAY, AGENT, TOGETHER, UPGRADE = "engine", "gateway", "agent", "together", "upgrade"
VICTIMS = (ENGINE, GATEWAY, AGENT, TOGETHER)
"""What can be killed; `together` means engine, gateway and agent at the same time."""
_OTHER_METHODS = ("TERM", "STOP", "ABRT", "OOM")


@dataclass(frozen=True)
class Disturbance:
    """One kill or upgrade. `what` is what is killed (one of VICTIMS), or UPGRADE.

    `method` is how it is killed: an engine by `KILL`, `TERM`, `STOP`, `ABRT` or `OOM` (out of memory), other
    victims always by `KILL`. It is empty for an upgrade.
    """

    what: str
    method: str = ""

    @property
    def cause(self) -> str:
        """Return the name under which the effects of this disturbance are counted, such as `engine TERM`."""
        return f"{self.what} {self.method}".strip()


def plan(kills: int, victims: Sequence[str], upgrades: int, seed: int) -> list[Disturbance]:
    """Return `kills` kills, in an order that depends on `seed`, with `upgrades` upgrades spread evenly over
    them.

    The kills are divided equally among `victims`. Half of the kills of an engine are by SIGKILL; SIGTERM,
    SIGSTOP, SIGABRT and lack of memory share the other half equally. Other victims are killed by SIGKILL
    only.
    """
    draw, made, engines = random.Random(seed), [], 0
    for number in range(kills):
        victim = victims[number % len(victims)]
        if victim == ENGINE:
            other = _OTHER_METHODS[engines // 2 % len(_OTHER_METHODS)]
            made.append(Disturbance(ENGINE, "KILL" if engines % 2 == 0 else other))
            engines += 1
        else:
            made.append(Disturbance(victim, "KILL"))
    draw.shuffle(made)
    for number in range(upgrades):
        made.insert(round((number + 0.5) * kills / upgrades) + number, Disturbance(UPGRADE))
    return made


def is_due(number: int, of: int, finished: int, requests: int) -> bool:
    """Return whether disturbance `number` (counted from 0) is due once `finished` requests are finished. The
    `of` disturbances of a run are spread evenly over its `requests` requests.
    """
    return finished >= requests * (number + 0.5) / (of + 1)
