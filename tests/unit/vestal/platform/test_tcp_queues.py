"""The queues of a port as Linux and macOS show them. tests/recorded/README.md has the sources."""

from __future__ import annotations

from pathlib import Path

from vestal.platform.tcp_queues import TcpQueues, parse_netstat, parse_proc_net_tcp

RECORDED = Path(__file__).resolve().parents[3] / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def test_proc_net_tcp_distinguishes_accepted_and_waiting_connections():
    text = recorded("linux/proc_net_tcp.txt")
    assert parse_proc_net_tcp(text, 11435) == TcpQueues(waiting=4, unread=1, accepted=2)
    assert parse_proc_net_tcp(text, 9099) == TcpQueues()


def test_netstat_of_macos_distinguishes_waiting_and_unread_connections():
    queue_sizes, connections = recorded("macos/netstat_listen.txt"), recorded("macos/netstat.txt")
    assert parse_netstat(queue_sizes, connections, 9099) == TcpQueues(accepted=1)
    busy = parse_netstat(queue_sizes, connections, 11435)
    assert busy == TcpQueues(waiting=45), "both connections may be among the 45 that wait"
    calm = parse_netstat(queue_sizes.replace("45/", "1/"), connections, 11435)
    assert calm == TcpQueues(waiting=1, unread=1, accepted=1)


def test_tcp_queues_of_an_unknown_format_are_none():
    assert parse_proc_net_tcp("garbage\n1: x\n", 80) == TcpQueues()
    assert parse_netstat("garbage\n", "tcp4 1 2 3\n", 80) == TcpQueues()
