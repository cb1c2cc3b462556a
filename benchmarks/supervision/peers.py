"""Start three supervisors, each in its own process, with one child.

The first run installs the peers from `requirements/peers.lock` into a virtual environment of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".cache" / "peers"
STOP_S = 2
"""Seconds that all three wait between SIGTERM and SIGKILL."""

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


@dataclass(frozen=True)
class Contestant:
    """A supervisor and its start command. Settings that are not named here have their defaults."""

    name: str
    program: str
    settings: str = ""

    def start(self, folder: Path, child: Path) -> subprocess.Popen[bytes]:
        """Start the supervisor in the foreground, with the executable file `child` as its child."""
        if self.settings:
            file = folder / "settings.ini"
            file.write_text(self.settings.format(folder=folder, child=child, stop_s=STOP_S))
            flag = ["-c"] if self.name == "supervisord" else []
            command = [str(PEERS / "bin" / self.program), *flag, str(file)]
        else:
            command = [sys.executable, "-m", self.program, json.dumps([str(child), str(folder), STOP_S])]
        with (folder / "output.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)


CONTESTANTS = (
    Contestant("vestal", "benchmarks.supervision.ours"),
    Contestant("supervisord", "supervisord", SUPERVISORD),
    Contestant("circus", "circusd", CIRCUS),
)


def prepare() -> None:
    """Install the peers unless they are installed already."""
    if all((PEERS / "bin" / peer.program).exists() for peer in CONTESTANTS if peer.settings):
        return
    print("installing supervisor and circus into .cache/peers", flush=True)
    subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
    lock = ROOT / "requirements" / "peers.lock"
    pip = [str(PEERS / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(lock)], check=True)
