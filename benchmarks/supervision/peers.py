"""Three supervisors, each in a process of its own, with one child. The peers live in an environment of their
own, made at the first run from `requirements/peers.lock`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".cache" / "peers"
STOP_S = 2
"""What SIGTERM is given before SIGKILL, by all three."""

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
    """A supervisor and how it is started; their defaults hold but for what is named here."""

    name: str
    program: str
    settings: str = ""

    def start(self, folder: Path, child: Path) -> subprocess.Popen[bytes]:
        """Runs it in the foreground, looking after `child`, an executable file."""
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
    """Installs the peers where they are not there yet."""
    if all((PEERS / "bin" / peer.program).exists() for peer in CONTESTANTS if peer.settings):
        return
    print("installing supervisor and circus into .cache/peers", flush=True)
    subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
    lock = ROOT / "requirements" / "peers.lock"
    pip = [str(PEERS / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(lock)], check=True)
