"""Draw conversations: when and at which machine they begin, which beginnings they share, and how long their
turns are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.scale.parameters import LoadParameters
from mlx_server.gateway.peers.conversation import Asked

Part = tuple[str, int]
"""A part of a prompt: its name, and its number of tokens. Parts with equal names have equal tokens."""


@dataclass(eq=False)
class Conversation:
    """A conversation at its present turn. `parts` is the whole prompt of that turn, in order.

    `home` is the machine of its client, `turns` the number of its turns, and `turn` the present one, from 0.
    """

    number: int
    home: int
    parts: list[Part]
    turns: int
    turn: int = 0


@dataclass(eq=False)
class Turn:
    """One request of a conversation: the parts of its prompt, and the length of its answer. The other fields
    are its history. Times are simulated seconds.

    `origin` is the number of the machine that got the request from the client, or of the one that took it
    over last. `placed_on` is the number of the machine to which it was sent last, and `is_passed_on` says
    whether `origin` passed it on to another machine. `is_taken_over` says whether, after a death, the request
    is continued by a machine to which the client did not send it. `given` tokens of the answer have been
    generated so far. `computed_tokens` counts the tokens of the prompt that were not taken from a prompt
    cache, and the tokens of an interrupted answer that were computed again. `finishes` counts how often the
    answer was completed; more than once would be an error.

    A death of its machine, or of its engine during the answer, cuts the request off. `was_cut_off` says
    whether that ever happened, and `cut_off_at` is when it happened, None once the answer goes on. `pauses_s`
    has the seconds of each interruption. `has_waited` says whether the request ever waited for its dead
    machine to return, and `began_again` counts how often the client had to send it again.
    """

    conversation: Conversation
    parts: tuple[Part, ...]
    answer_tokens: int
    arrived_at: float
    given: float = 0.0
    placed_on: int = -1
    origin: int = -1
    is_passed_on: bool = False
    is_taken_over: bool = False
    first_token_at: float | None = None
    finished_at: float | None = None
    finishes: int = 0
    computed_tokens: float = 0.0
    cut_off_at: float | None = None
    pauses_s: list[float] = field(default_factory=list)
    began_again: int = 0
    was_cut_off: bool = False
    has_waited: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Return the number of tokens in the prompt."""
        return sum(tokens for _, tokens in self.parts)

    @property
    def answer_part(self) -> Part:
        """Return the answer as a part of the next turn's prompt."""
        return f"c{self.conversation.number}.{self.conversation.turn}a", self.answer_tokens


def asked_of(turn: Turn, bytes_per_token: int) -> Asked:
    """Return what a gateway would read from the body of the turn's request to choose a machine. For each part
    of the prompt, this is a digest of the prompt up to the end of that part, and the size of that beginning
    in bytes. `bytes_per_token` is the length of a token's text.
    """
    size, beginnings = 0, []
    for name, tokens in turn.parts:
        size += tokens * bytes_per_token
        beginnings.append((name.encode(), size))
    return Asked("model", "", tuple(beginnings))


class Workload:
    """Draws the conversations of a simulation, of which `per_hour` begin on average per hour and machine. The
    random numbers depend only on `seed`, so that conversations begin at the same times and machines under all
    routing rules that are compared.
    """

    def __init__(self, load: LoadParameters, machines: int, per_hour: float, seed: int) -> None:
        self._load = load
        self._draw = random.Random(f"load {seed}")
        self._rate = machines * per_hour / 3600
        self._shares = [(n + 1) ** -load.unevenness for n in range(machines)]
        self._homes = range(machines)
        self._count = 0

    def arrivals(self, until_s: float) -> Iterator[tuple[float, Conversation]]:
        """Yield each conversation that begins before `until_s`, with the time at which it begins, in
        simulated seconds.
        """
        at = self._draw.expovariate(self._rate)
        while at < until_s:
            yield at, self._conversation()
            at += self._draw.expovariate(self._rate)

    def _conversation(self) -> Conversation:
        load, draw = self._load, self._draw
        self._count += 1
        shared = min(
            int(draw.paretovariate(1.0)) - 1, load.beginnings - 1
        )  # some beginnings are far more frequent than others
        (home,) = draw.choices(self._homes, self._shares)
        turns = 1
        while draw.random() > 1 / load.turns:
            turns += 1
        parts = [(f"s{shared}", load.beginning_tokens), (f"c{self._count}.0q", load.turn_tokens)]
        return Conversation(self._count, home, parts, turns)

    def turn(self, conversation: Conversation, now: float) -> Turn:
        """Return the conversation's present turn as a request that arrives at the time `now`."""
        answer = max(1, round(self._draw.expovariate(1 / self._load.answer_tokens)))
        return Turn(conversation, tuple(conversation.parts), answer, now)

    def think_s(self) -> float:
        """Return the seconds that the client waits before its next turn."""
        return self._draw.expovariate(1 / self._load.think_s)

    def next_turn(self, done: Turn) -> Conversation | None:
        """Return the conversation, advanced to the turn after `done`; None if the conversation is over."""
        one = done.conversation
        one.parts.append(done.answer_part)
        one.turn += 1
        one.parts.append((f"c{one.number}.{one.turn}q", self._load.turn_tokens))
        return one if one.turn < one.turns else None
