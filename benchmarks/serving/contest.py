"""Let servers take turns at a measurement, and log a value or a failure for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks.figures import Better, Figure
from benchmarks.scenario import Log, progress
from benchmarks.serving.servers import Server, one_sentence

Values = Mapping[str, float]
"""Measured values by the name of the row."""

Units = Mapping[str, tuple[str, Better]]
"""The unit of each row, and whether higher or lower values are better, by the name of the row."""


class Contest:
    """Lets the servers of a scenario take turns at each measurement. Each round begins with the next server
    of the list, so that none is always measured first.

    If a server fails a measurement, the failure is logged at once. If the server's process has ended, the end
    of its output is logged and the server is started again; if that fails too, each further measurement of
    this server is logged as failed.
    """

    def __init__(self, log: Log, servers: Sequence[Server]) -> None:
        self._log = log
        self._servers = list(servers)
        self._lost: dict[str, str] = {}

    def turn(
        self,
        number: int,
        units: Units,
        measure: Callable[[Server], Values],
        among: Callable[[Server], bool] | None = None,
    ) -> dict[str, Values]:
        """Measure each server once, in round `number`, and log its values or its failure. Return the values
        of the servers that did not fail, by the server's name.

        `units` has the unit of each value that `measure` returns, and whether a higher or a lower value is
        better. If `among` is given, only the servers for which it returns True are measured.
        """
        found: dict[str, Values] = {}
        first = (number - 1) % max(len(self._servers), 1)
        for server in [*self._servers[first:], *self._servers[:first]]:
            if among and not among(server):
                continue
            began = time.monotonic()
            try:
                if server.name in self._lost:
                    raise RuntimeError(self._lost[server.name])
                values = measure(server)
            except Exception as error:
                failed = self._failure(server, error)
                for row in units:
                    self._log(Figure(row, server.name, failed=failed, round=number))
                continue
            found[server.name] = values
            for row, value in values.items():
                unit, better = units[row]
                self._log(Figure(row, server.name, value, unit, better, number))
            shown = ", ".join(f"{row} {value:.4g}" for row, value in values.items())
            progress(f"  {number} {server.name}: {shown} ({time.monotonic() - began:.1f} s)")
        return found

    def warm_up(self, call: Callable[[Server], None]) -> None:
        """Call `call` with each server before the first round. An error is printed but not logged as a failed
        figure, because the measurements will fail too.
        """
        for server in self._servers:
            try:
                call(server)
            except Exception as error:
                self._failure(server, error)

    def _failure(self, server: Server, error: Exception) -> str:
        if server.name in self._lost:
            return self._lost[server.name]
        if server.is_alive:
            failed = one_sentence(str(error) or type(error).__name__)
            progress(f"{server.name} failed: {failed}")
            return failed
        failed = one_sentence(f"It died. {server.last_words()}")
        progress(f"{server.name} failed: {failed}")
        try:
            server.until_restarted()
        except Exception as again:
            self._lost[server.name] = one_sentence(f"It died, and did not start again: {again}")
            progress(f"{server.name}: {self._lost[server.name]}")
        return failed
