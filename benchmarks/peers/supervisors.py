"""Define the supervisors with which Vestal's is compared, each with one child and its default settings.

Only what the comparison needs is set: that the child is restarted, and the seconds between SIGTERM and
SIGKILL.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.figures import VESTAL
from benchmarks.peers.environments import ENVIRONMENTS, REPO, program_of
from benchmarks.peers.process import Peer, PeerFailed, RunningProcess
from benchmarks.processes.gateway import free_port

STOP_S = 2
"""How many seconds each supervisor waits between SIGTERM and SIGKILL."""

SUPERVISORD = """
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
childlogdir={folder}
[program:child]
command={child}
autorestart=true
stopwaitsecs={stop_s}
"""
CIRCUS = """
[circus]
endpoint = ipc://{folder}/endpoint
pubsub_endpoint = ipc://{folder}/pubsub
[watcher:child]
cmd = {child}
graceful_timeout = {stop_s}
"""
MONIT = """
set daemon 1
set log {folder}/monit.log
set pidfile {folder}/monit.pid
set idfile {folder}/monit.id
set statefile {folder}/monit.state
check process child with pidfile {folder}/child.pid
  start program = "{folder}/start"
  stop program = "/bin/sh -c 'kill $(cat {folder}/child.pid)'"
"""
"""Monit checks PID files, at most once per second; `start` puts the child in the background."""
MONIT_START = "#!/bin/sh\nsetsid {child} >/dev/null 2>&1 &\necho $! > {folder}/child.pid\n"
PROCESS_COMPOSE = """
version: "0.5"
processes:
  child:
    command: exec {child}
    availability: {{restart: always}}
    shutdown: {{signal: 15, timeout_seconds: {stop_s}}}
"""


class SupervisorPeer(Peer, Protocol):
    """A supervisor that can be compared with Vestal's."""

    def start(self, folder: Path, child: Path) -> RunningProcess:
        """Start the supervisor in the foreground, with the executable file `child` as its child. Settings and
        log are written to `folder`.

        Raises PeerFailed if the supervisor or its child does not start.
        """


@dataclass(frozen=True)
class ForegroundSupervisor:
    """A supervisor that is started in the foreground by one command.

    `why_not` returns None if the supervisor can run on this machine, else a sentence that says why it cannot.
    `installed_version` returns the supervisor's version; "" if there is none. `command` is called with a
    folder and the executable file that is to be supervised. It writes the supervisor's settings to the
    folder, and returns the command as a list of arguments. `env` is called with the same folder, and returns
    environment variables to add.
    """

    name: str
    why_not: Callable[[], str | None]
    installed_version: Callable[[], str]
    command: Callable[[Path, Path], Sequence[str]]
    env: Callable[[Path], Mapping[str, str]] = lambda folder: {}

    def available(self) -> str | None:
        return self.why_not()

    def version(self) -> str:
        return self.installed_version()

    def start(self, folder: Path, child: Path) -> RunningProcess:
        if (why_not := self.why_not()) is not None:
            raise PeerFailed(f"{self.name} cannot run here. {why_not}")
        process = RunningProcess(
            self.name,
            self.command(folder, child),
            ready=(folder / "starts").exists,
            env={"PYTHONPATH": str(REPO)} | dict(self.env(folder)),
            folder=folder,
            start_timeout_s=30.0,
        )
        process.start()
        return process


def ours(folder: Path, child: Path) -> list[str]:
    """Return the command that starts Vestal's supervisor, with the executable file `child` as its child and
    with its PID file in `folder`.
    """
    given = json.dumps([str(child), str(folder), STOP_S])
    return [sys.executable, "-m", "benchmarks.peers.our_supervisor", given]


def _supervisord(folder: Path, child: Path) -> list[str]:
    return [program_of("supervisord"), "-c", _settings(folder, child, SUPERVISORD)]


def _circus(folder: Path, child: Path) -> list[str]:
    return [program_of("circus"), _settings(folder, child, CIRCUS)]


def _pm2(folder: Path, child: Path) -> list[str]:
    app = {"name": "child", "script": str(child), "interpreter": "none", "kill_timeout": STOP_S * 1000}
    (folder / "settings.json").write_text(json.dumps({"apps": [app]}))
    return ["node", program_of("pm2"), "start", str(folder / "settings.json")]


def _monit(folder: Path, child: Path) -> list[str]:
    start = folder / "start"
    start.write_text(MONIT_START.format(folder=folder, child=child))
    start.chmod(0o700)
    settings = _settings(folder, child, MONIT)
    Path(settings).chmod(0o600)  # monit refuses a file that others can read
    return [program_of("monit"), "-I", "-c", settings]


def _process_compose(folder: Path, child: Path) -> list[str]:
    settings = _settings(folder, child, PROCESS_COMPOSE)
    address = ["--address", "127.0.0.1", "--port", str(free_port())]
    return [program_of("process-compose"), *address, "--tui=false", "-f", settings, "up"]


def _settings(folder: Path, child: Path, text: str) -> str:
    file = folder / "settings"
    file.write_text(text.format(folder=folder, child=child, stop_s=STOP_S))
    return str(file)


def _installed(
    name: str,
    command: Callable[[Path, Path], Sequence[str]],
    env: Callable[[Path], Mapping[str, str]] = lambda folder: {},
) -> ForegroundSupervisor:
    own = ENVIRONMENTS[name]
    return ForegroundSupervisor(name, own.why_not, own.version, command, env)


VESTAL_SUPERVISOR = ForegroundSupervisor(VESTAL, lambda: None, lambda: "", ours)
SUPERVISOR_PEERS: tuple[SupervisorPeer, ...] = (
    _installed("supervisord", _supervisord),
    _installed("circus", _circus),
    _installed("pm2", _pm2, lambda folder: {"PM2_HOME": str(folder / "pm2")}),
    _installed("monit", _monit),
    _installed("process-compose", _process_compose),
)
"""The peers, installed or not, in the order in which tables show them."""
