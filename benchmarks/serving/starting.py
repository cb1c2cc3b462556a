"""Start the servers of a comparison: Vestal with one or more settings, and the installed peers, which are the
servers that it is compared with.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from benchmarks.client.requests import MODEL
from benchmarks.figures import VESTAL, Figure
from benchmarks.peers.models import BenchModel, prepared
from benchmarks.peers.serving import SERVING_PEERS, ServingPeer
from benchmarks.processes.gateway import installed_models
from benchmarks.scenario import Log, Subjects, progress
from benchmarks.serving.contest import Contest, Units, Values
from benchmarks.serving.servers import Server, Vestal, one_sentence

OTHER = "BENCH_OTHER"
"""The environment variable that names the folder of another checkout, whose version also takes part."""


class PeerServer:
    """A running peer with the interface `Server`. After a kill, `until_restarted` starts it again."""

    def __init__(self, peer: ServingPeer) -> None:
        self.name = peer.name
        self._running = peer.start(bench_model())
        self.model = self._running.model
        self.url = self._running.url

    def __enter__(self) -> PeerServer:
        self._running.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._running.__exit__(*error)

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def is_alive(self) -> bool:
        return self._running.is_alive

    def last_words(self) -> str:
        return self._running.last_words()

    def kill(self) -> None:
        self._running.kill()

    def until_restarted(self) -> None:
        self._running.restart_after_kill()


@cache
def bench_model() -> BenchModel:
    """Return the model of the benchmarks in the forms that Vestal and the compared servers read: a folder of
    safetensors, a GGUF file, and a smaller draft model. Return only the folder if the others cannot be
    written, for example because the package `gguf` is not installed.
    """
    folder = installed_models() / MODEL.replace(":", "__")
    try:
        return prepared(folder)
    except (ImportError, ValueError) as error:
        progress(f"The model is not there in all forms: {error}")
        return BenchModel(folder)


@contextlib.contextmanager
def running(
    log: Log,
    subjects: Subjects,
    rows: Sequence[str],
    variants: Mapping[str, Mapping[str, str]] | None = None,
    peers: Sequence[str] | None = None,
) -> Iterator[list[Server]]:
    """Start Vestal and its peers as far as `subjects` wants them, yield the servers that started, and stop
    them at the end.

    `variants` maps the name of each Vestal server to its settings, as environment variables; by default there
    is one Vestal server, without settings. `peers` has the names of the peers that may take part; None means
    all. For a server that does not start, a failure is logged for each figure that `rows` names, and the
    others continue.
    """
    with ExitStack() as stack:
        servers: list[Server] = []
        for name, start in _starts(subjects, variants or {VESTAL: {}}, peers):
            progress(f"{name} starts …")
            try:
                servers.append(stack.enter_context(start()))
            except Exception as error:
                failed = one_sentence(f"It did not start: {error}")
                progress(f"{name}: {failed}")
                for row in rows:
                    log(Figure(row, name, failed=failed))
        yield servers


def _starts(
    subjects: Subjects, variants: Mapping[str, Mapping[str, str]], peers: Sequence[str] | None
) -> Iterator[tuple[str, Callable[[], contextlib.AbstractContextManager[Server]]]]:
    for name, env in variants.items():
        if subjects.wants(name):
            yield name, partial(Vestal, name, env)
    if other := os.environ.get(OTHER):
        name = f"{VESTAL} of {Path(other).resolve().name}"
        yield name, partial(Vestal, name, variants.get(VESTAL, {}), Path(other).resolve())
    for peer in SERVING_PEERS:
        if subjects.wants(peer.name) and (peers is None or peer.name in peers):
            why_not = peer.available()
            if why_not is None:
                yield peer.name, partial(PeerServer, peer)
            else:
                subjects.skip(peer.name, why_not)


def measure_in_rounds(
    log: Log,
    subjects: Subjects,
    rounds: int,
    units: Units,
    warm_up: Callable[[Server], None],
    measure: Callable[[Server, int], Values],
    peers: Sequence[str] | None = None,
) -> None:
    """Measure Vestal and its peers (the servers that it is compared with) in `rounds` rounds, and log each
    value or failure. `subjects` says which of them are wanted, and `peers` has the names of the peers that
    may take part; None means all.

    All servers are started first, and `warm_up` is called with each. In each round, `measure` is called once
    for each server, one server after another, with the server and the number of the round. At the end, the
    servers are stopped. `units` maps the name of each figure to its unit and to whether higher or lower
    values are better.

    A server that fails a measurement takes part in the next round too; if its process has ended, it is
    started again before.
    """
    with running(log, subjects, list(units), peers=peers) as servers:
        contest = Contest(log, servers)
        contest.warm_up(warm_up)
        for number in range(1, rounds + 1):
            contest.turn(number, units, partial(_in_round, measure, number))


def _in_round(measure: Callable[[Server, int], Values], number: int, server: Server) -> Values:
    return measure(server, number)
