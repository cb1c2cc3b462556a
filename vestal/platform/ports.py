"""Who holds a TCP port: which process, which PID, whose, since when."""

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass

import psutil

WILDCARDS = {"0.0.0.0", "::", "*"}


@dataclass(frozen=True)
class PortHolder:
    """A process that listens on a port. `pid` is None where the system does not tell us."""

    port: int
    pid: int | None
    name: str = ""
    command: str = ""
    user: str = ""
    since: float | None = None


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server could bind the port now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def holder(port: int, address: str = "127.0.0.1") -> PortHolder | None:
    """The process that listens on the port at this address or at all addresses; None where none does."""
    try:
        sockets = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS tells only root
        return _by_lsof(port) or (None if is_free(port, address) else PortHolder(port, None))
    for entry in sockets:
        if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port == port:
            here = entry.laddr.ip.removeprefix("::ffff:")
            if here == address or here in WILDCARDS or address in WILDCARDS:
                return _described(port, entry.pid)
    return None


def in_use_message(held: PortHolder, setting: str) -> str:
    """One sentence: who holds the port, and what to do. `setting` names another port's variable."""
    if held.pid is None:
        return (
            f"port {held.port} is held by a process of another user; find it with "
            f"`sudo lsof -nP -iTCP:{held.port} -sTCP:LISTEN`, or set {setting} to another port"
        )
    since = f", since {_when(held.since)}" if held.since else ""
    user = f", user {held.user}" if held.user and held.user != _me() else ""
    return (
        f"port {held.port} is held by {held.name or 'a process'} (PID {held.pid}{user}{since}); "
        f"stop it with `kill {held.pid}`, or set {setting} to another port"
    )


def parse_lsof(port: int, output: str) -> PortHolder | None:
    """The first process in the output of `lsof -F pcL`."""
    fields: dict[str, str] = {}
    for line in output.splitlines():
        if line[:1] == "p" and "p" in fields:
            break
        fields.setdefault(line[:1], line[1:])
    if not fields.get("p", "").isdigit():
        return None
    return PortHolder(port, int(fields["p"]), fields.get("c", ""), "", fields.get("L", ""))


def _by_lsof(port: int) -> PortHolder | None:
    if not shutil.which("lsof"):
        return None
    command = ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-FpcL"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = parse_lsof(port, output)
    return _described(port, found.pid) if found else None


def _described(port: int, pid: int | None) -> PortHolder:
    if pid is None:
        return PortHolder(port, None)
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            name, since = process.name(), process.create_time()
    except psutil.Error:
        return PortHolder(port, pid)
    return PortHolder(port, pid, name, _quietly(process, "cmdline"), _quietly(process, "username"), since)


def _quietly(process: psutil.Process, what: str) -> str:
    try:
        value = getattr(process, what)()
    except (psutil.Error, KeyError):
        return ""
    return " ".join(value) if isinstance(value, list) else str(value)


def _me() -> str:
    return _quietly(psutil.Process(), "username")


def _when(since: float) -> str:
    """10:31 today, else with the date."""
    started, now = time.localtime(since), time.localtime()
    same_day = started[:3] == now[:3]
    return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", started)
