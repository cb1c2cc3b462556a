"""Read how many connections to a server's TCP port wait to be accepted, and how many have unread data.

Linux shows both in /proc/net/tcp, macOS by netstat(1).
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vestal.platform import commands

PROC_FILES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTEN, ESTABLISHED, CLOSE_WAIT = "0A", "01", "08"
NETSTAT_TIMEOUT_S = 2.0
_QUEUE_SIZES = re.compile(r"(\d+)/\d+/\d+\s+(\S+)")  # unaccepted / incomplete / most, and the address


@dataclass(frozen=True)
class TcpQueues:
    """The numbers of connections to one TCP port that wait, have unread data, or are accepted.

    `waiting` connections wait to be accepted; `unread` ones were accepted and have data that the server has
    not read; `accepted` is the number of all accepted ones. A connection that its client has closed counts
    until the server has closed it too.
    """

    waiting: int = 0
    unread: int = 0
    accepted: int = 0


def read(port: int) -> TcpQueues | None:
    """Return three numbers of connections to the local port `port`: of those that wait to be accepted, of the
    accepted ones with data that the server has not read, and of all accepted ones. Return None if this system
    does not show them.
    """
    if sys.platform == "linux":
        texts = [text for path in PROC_FILES if (text := _read_text(path))]
        return parse_proc_net_tcp("\n".join(texts), port) if texts else None
    queue_sizes = commands.output("netstat", "-Lan", "-p", "tcp", timeout_s=NETSTAT_TIMEOUT_S)
    connections = commands.output("netstat", "-an", "-p", "tcp", timeout_s=NETSTAT_TIMEOUT_S)
    if queue_sizes is None or connections is None:
        return None
    return parse_netstat(queue_sizes, connections, port)


def parse_proc_net_tcp(text: str, port: int) -> TcpQueues:
    """Return the queues of the local port `port` in `text`, the content of /proc/net/tcp and /proc/net/tcp6.

    The receive queue of a listening socket is the number of connections that wait. A connection with the
    inode 0 has not been accepted yet, and is not counted again.
    """
    waiting = unread = accepted = 0
    suffix = f":{port:04X}"
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10 or not fields[1].endswith(suffix):
            continue
        state, received, inode = fields[3], int(fields[4].partition(":")[2], 16), fields[9]
        if state == LISTEN:
            waiting += received
        elif state in (ESTABLISHED, CLOSE_WAIT) and inode != "0":
            accepted += 1
            unread += received > 0
    return TcpQueues(waiting, unread, accepted)


def parse_netstat(queue_sizes: str, connections: str, port: int) -> TcpQueues:
    """Return the queues of the local port `port`. `queue_sizes` is the output of macOS's `netstat -Lan`, and
    `connections` that of `netstat -an`.

    netstat does not say which connections were accepted. Their number is that of all connections minus that
    of the waiting ones.
    """
    sizes = (match for line in queue_sizes.splitlines() if (match := _QUEUE_SIZES.search(line)))
    waiting = sum(int(size[1]) for size in sizes if size[2].endswith(f".{port}"))
    received = list(_received_bytes(connections.splitlines(), port))
    accepted = max(0, len(received) - waiting)
    unread = min(accepted, sum(count > 0 for count in received))
    return TcpQueues(waiting, unread, accepted)


def _received_bytes(lines: Iterable[str], port: int) -> Iterable[int]:
    """Yield, for each open connection to `port`, how many bytes have arrived that the server has not read.
    `lines` is the output of `netstat -an`.
    """
    for line in lines:
        fields = line.split()
        is_open = len(fields) >= 6 and fields[5] in ("ESTABLISHED", "CLOSE_WAIT")
        if is_open and fields[0].startswith("tcp") and fields[3].endswith(f".{port}"):
            yield int(fields[1])


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
