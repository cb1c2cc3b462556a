"""Which connections are closed: silent ones after a timeout, the one silent longest for a new one."""

from __future__ import annotations

from vestal.web.connections import (
    BODY_MIN_BYTES,
    BODY_WINDOW_S,
    CLOSED_WITHIN_S,
    HEADERS_WITHIN_S,
    IDLE_FOR_S,
    NEW_FOR_S,
    UNREAD_FOR_S,
    Connection,
    ConnectionTable,
    Phase,
)


class Transport:
    def close(self) -> None: ...

    def abort(self) -> None: ...


def table_of(count: int, max_open: int = 10) -> tuple[ConnectionTable, list[Connection]]:
    table = ConnectionTable(max_open)
    return table, [table.opened(Transport(), float(number)) for number in range(count)]


def test_connection_whose_headers_trickle_in_is_overdue_after_the_header_timeout():
    table, (connection,) = table_of(1)
    for second in range(20):
        table.report(connection, Phase.HEADERS, float(second), 1)
    assert table.overdue(HEADERS_WITHIN_S) == []
    assert table.overdue(HEADERS_WITHIN_S + 0.1) == [connection]


def test_connection_waiting_for_its_next_request_is_overdue_only_after_the_idle_time():
    table, (connection,) = table_of(1)
    table.report(connection, Phase.ANSWERING, 1.0)
    table.report(connection, Phase.IDLE, 50.0)
    assert table.overdue(50.0 + IDLE_FOR_S) == []
    assert table.overdue(50.1 + IDLE_FOR_S) == [connection]


def test_connection_being_answered_is_never_overdue():
    table, (connection,) = table_of(1)
    table.report(connection, Phase.ANSWERING, 1.0)
    assert table.overdue(1e9) == []
    assert table.to_drop(1e9) is None


def test_idle_websocket_is_never_overdue_but_is_dropped_for_a_new_connection():
    table, (socket,) = table_of(1, max_open=1)
    table.report(socket, Phase.OPEN, 1)
    assert table.overdue(10**6) == []
    assert table.to_drop(10**6) is socket


def test_large_request_body_that_keeps_arriving_is_not_overdue():
    table, (connection,) = table_of(1)
    now = 0.0
    for _ in range(500):
        table.report(connection, Phase.BODY, now, BODY_MIN_BYTES)
        now += BODY_WINDOW_S - 1
        assert table.overdue(now) == []


def test_request_body_that_trickles_in_is_overdue_shortly_after_the_body_timeout():
    table, (connection,) = table_of(1)
    late = BODY_WINDOW_S + CLOSED_WITHIN_S
    for second in range(int(late)):
        table.report(connection, Phase.BODY, float(second), 100)
    assert table.overdue(late) == []
    assert table.overdue(late + 0.1) == [connection]


def test_connection_whose_client_does_not_read_the_answer_is_overdue():
    table, (connection,) = table_of(1)
    table.report(connection, Phase.ANSWERING, 1.0)
    table.report_unread(connection, True, 2.0)
    assert table.overdue(UNREAD_FOR_S) == []
    table.report_unread(connection, False, 2.0)
    assert table.overdue(2 * UNREAD_FOR_S) == []
    table.report_unread(connection, True, 3.0)
    assert table.overdue(UNREAD_FOR_S + 3.1) == [connection]


def test_connection_that_was_dropped_but_is_not_closed_in_time_is_reported_as_overdue():
    table, (connection,) = table_of(1)
    assert table.to_drop(5.0) is connection
    assert table.overdue(5.0 + CLOSED_WITHIN_S) == []
    assert table.overdue(5.1 + CLOSED_WITHIN_S) == [connection]
    table.closed(connection)
    assert table.overdue(100.0) == []


def test_connection_idle_for_longest_is_dropped_first_to_make_room_whatever_phase_its_request_is_in():
    table, (first, second, third, fourth) = table_of(4, max_open=4)
    table.report(second, Phase.ANSWERING, 4.0)
    table.report(first, Phase.HEADERS, 5.0, 1)
    table.report(third, Phase.BODY, 6.0, 1)
    table.report(second, Phase.IDLE, 7.0)
    assert [table.to_drop(8.0) for _ in range(5)] == [fourth, first, third, second, None]
    assert table.take_dropped() == 4
    assert table.take_dropped() == 0


def test_new_connection_is_not_dropped_for_another_before_its_request_can_arrive():
    table, (connection,) = table_of(1, max_open=1)
    assert table.to_drop(NEW_FOR_S / 2) is None
    assert table.to_drop(NEW_FOR_S) is connection


def test_full_connection_table_has_room_once_a_connection_is_being_closed():
    table, (first, _) = table_of(2, max_open=2)
    assert table.is_full
    table.to_drop(5.0)
    assert not table.is_full
    table.accepted += 1
    assert table.is_full
    table.closed(first)
    assert table.is_full


def test_full_table_drops_a_longer_idle_connection_before_one_whose_client_just_resumed_reading():
    """A client that had just read was once listed behind newer ones, and kept them from making room."""
    table = ConnectionTable(2)
    reader, silent = table.opened(Transport(), 0.0), table.opened(Transport(), 1.0)
    table.report_unread(reader, True, 2.0)
    table.report_unread(reader, False, 9.0)
    assert table.to_drop(10.0) is silent
    assert table.to_drop(10.0) is reader
