"""The table of open connections, under any sequence of reports."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.vestal.web.test_connections import Transport
from vestal.web.connections import BODY_MIN_BYTES, NEW_FOR_S, Connection, ConnectionTable, Phase


class AnyReports(RuleBasedStateMachine):
    """Whatever is reported: no busy connection is dropped, and none is forgotten or counted twice."""

    @initialize()
    def begin(self) -> None:
        self.table, self.now = ConnectionTable(5), 0.0
        self.open: list[Connection] = []

    @rule()
    def opened(self) -> None:
        self.open.append(self.table.opened(Transport(), self.now))

    @rule(data=st.data(), phase=st.sampled_from(Phase), received=st.integers(0, BODY_MIN_BYTES))
    def reported(self, data: Any, phase: Phase, received: int) -> None:
        if self.open:
            self.table.report(data.draw(st.sampled_from(self.open)), phase, self.now, received)

    @rule(data=st.data(), unread=st.booleans())
    def unread(self, data: Any, unread: bool) -> None:
        if self.open:
            connection = data.draw(st.sampled_from(self.open))
            self.table.report_unread(connection, unread, self.now)

    @rule(data=st.data())
    def closed(self, data: Any) -> None:
        if self.open:
            connection = data.draw(st.sampled_from(self.open))
            self.open.remove(connection)
            self.table.closed(connection)
            self.table.report(connection, Phase.IDLE, self.now)  # the end of its handler comes later

    @rule()
    def made_room(self) -> None:
        connection = self.table.to_drop(self.now)
        silent = [
            each
            for each in self.open
            if each.phase is not Phase.ANSWERING and each.unread_since is None
            if each.closing_since is None or each is connection
        ]
        if connection is not None:
            assert connection in silent
        oldest_at = min((each.active_at for each in silent), default=self.now)
        assert (connection is not None) == (self.now - oldest_at >= NEW_FOR_S)
        assert connection is None or connection.active_at == oldest_at

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for connection in self.table.overdue(self.now):
            assert connection in self.open
            if connection.closing_since == self.now and connection.unread_since is None:
                assert connection.phase is not Phase.ANSWERING

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.table) == len(self.open)
        closing = sum(each.closing_since is not None for each in self.open)
        assert self.table.is_full == (len(self.open) - closing >= 5)


TestAnyReports = AnyReports.TestCase
