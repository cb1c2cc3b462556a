"""Find the process that listens on a TCP port."""

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from vestal.platform.container_ports import listens_for_containers

WILDCARDS = {"0.0.0.0", "::", "*"}
LSOF_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class PortHolder:
    """A process that listens on a port.

    `pid` is None if the system does not disclose it, as for another user's process. `since` is when the
    process started, in seconds since 1970.
    """

    port: int
    pid: int | None
    name: str = ""
    command: str = ""
    user: str = ""
    since: float | None = None


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Return whether a server could bind the port at this address now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def holder(port: int, address: str = "127.0.0.1") -> PortHolder | None:
    """Return the process that listens on the port at this address or at all addresses; None if there is none.
    Its `pid` is None if the system does not disclose it.

    If a parent holds the socket and its child serves it, the child is returned.
    """
    try:
        sockets = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS lists the sockets of all processes only for root
        found = _holder_by_lsof(port, address)
        return found or (None if is_free(port, address) else PortHolder(port, None))
    listening = [
        (entry.laddr.ip.removeprefix("::ffff:"), entry.pid)
        for entry in sockets
        if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port == port
    ]
    return _first_at(address, port, listening)


def _first_at(address: str, port: int, listening: Sequence[tuple[str, int | None]]) -> PortHolder | None:
    """Return a process that listens on the port at this very address. If there is none, return one that
    occupies the port there because its own address or `address` is a wildcard; None if there is none either.

    `listening` has the address and the PID of each socket that listens on the port.
    """
    exact = [pid for ip, pid in listening if ip == address]
    shared = [pid for ip, pid in listening if ip in WILDCARDS or address in WILDCARDS]
    return next((_describe(port, _serving_process(port, pid)) for pid in (*exact, *shared)), None)


def _serving_process(port: int, pid: int | None) -> int | None:
    """Return the child of `pid` that also has the listening socket; `pid` itself if no child has it or if
    `pid` is None.
    """
    try:
        children = [] if pid is None else psutil.Process(pid).children()
    except psutil.Error:
        return pid
    return next((child.pid for child in children if _listens(child.pid, port)), pid)


def _listens(pid: int, port: int) -> bool:
    return any(at.endswith(f":{port}") for at in listening_at(pid))


def listening_at(pid: int) -> tuple[str, ...]:
    """Return the addresses at which a process of this user listens, as `127.0.0.1:11434` or `[::1]:11434`;
    none if they cannot be read.
    """
    try:
        sockets = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return ()
    listening = (entry.laddr for entry in sockets if entry.status == psutil.CONN_LISTEN and entry.laddr)
    return tuple(f"[{at.ip}]:{at.port}" if ":" in at.ip else f"{at.ip}:{at.port}" for at in listening)


def in_use_message(holder: PortHolder, setting: str) -> str:
    """Return a sentence, without a full stop, that says which process holds the port and what the user can
    do: find or stop that process, or change the port by the setting with the name `setting`.
    """
    if holder.pid is None:
        return (
            f"port {holder.port} is held by a process of another user; find it with "
            f"`sudo lsof -nP -iTCP:{holder.port} -sTCP:LISTEN`, or set {setting} to another port"
        )
    since = f", since {_time_of_day(holder.since)}" if holder.since else ""
    user = f", user {holder.user}" if holder.user and holder.user != _current_user() else ""
    if listens_for_containers(holder.name) and holder.name != "ssh":
        # To end it would cut off all containers, or end their machine. `ssh` is most often a tunnel.
        return (
            f"port {holder.port} is held by {holder.name} (PID {holder.pid}{user}{since}), which listens "
            f"there for a container; find it with `docker ps --filter publish={holder.port}` and stop it "
            f"with `docker stop`, or set {setting} to another port"
        )
    return (
        f"port {holder.port} is held by {holder.name or 'a process'} (PID {holder.pid}{user}{since}); "
        f"stop it with `kill {holder.pid}`, or set {setting} to another port"
    )


def parse_lsof(output: str) -> list[tuple[str, int]]:
    """Return the address, without its port, and the PID of each socket in `output`, which `lsof -Fpn`
    printed. The address is `*` for a socket at all addresses.
    """
    found: list[tuple[str, int]] = []
    pid = ""
    for line in output.splitlines():
        field, value = line[:1], line[1:]
        if field == "p":
            pid = value
        elif field == "n" and pid.isdecimal():
            address = value.rpartition(":")[0].strip("[]")
            found.append((address.removeprefix("::ffff:"), int(pid)))
    return found


def _holder_by_lsof(port: int, address: str) -> PortHolder | None:
    if not shutil.which("lsof"):
        return None
    command = ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpn"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LSOF_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _first_at(address, port, parse_lsof(done.stdout))


def _describe(port: int, pid: int | None) -> PortHolder:
    if pid is None:
        return PortHolder(port, None)
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            name, since = process.name(), process.create_time()
    except psutil.Error:
        return PortHolder(port, pid)
    command, user = _read_or_empty(process, "cmdline"), _read_or_empty(process, "username")
    return PortHolder(port, pid, name, command, user, since)


def _read_or_empty(process: psutil.Process, attribute: str) -> str:
    """Return an attribute of the process; empty if the system does not disclose it."""
    try:
        value = getattr(process, attribute)()
    except (psutil.Error, KeyError):
        return ""
    return " ".join(value) if isinstance(value, list) else str(value)


def _current_user() -> str:
    return _read_or_empty(psutil.Process(), "username")


def _time_of_day(seconds: float) -> str:
    """Return `10:31` for a time today, and `2025-11-16 10:31` for any other."""
    then, now = time.localtime(seconds), time.localtime()
    same_day = then[:3] == now[:3]
    return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", then)
