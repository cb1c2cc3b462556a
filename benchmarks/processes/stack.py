"""Run a whole stack (agent, gateway, engine) with its own home, ports, and copy of the code."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks.processes.gateway import FOREIGN, free_port, installed_models

REPO = Path(__file__).resolve().parents[2]
COPIED = ("vestal", "mlx_server", "host_agent", "orchestrator", "deploy", "requirements", "pyproject.toml")
UP_TIMEOUT_S = 180.0
DOWN_TIMEOUT_S = 120.0
HEALTH_TIMEOUT_S = 2.0
END_S = 10.0


class StackProcess:
    """A stack that `vestal up` starts and `vestal down` stops.

    Gateway, agent and orchestrator get three consecutive ports from `first_port`, or free ports if it is 0.
    `env` holds environment variables for the stack's processes, which take precedence over those that this
    class sets.

    The stack runs from a copy of the code, so that an upgrade can be tried by changing the copy. The stack's
    home folder, which also holds that copy, is deleted when the `with` block ends, unless `keeps_home`.
    """

    def __init__(self, *, keeps_home: bool = False, first_port: int = 0, **env: str) -> None:
        models = installed_models()
        self.home = Path(tempfile.mkdtemp(prefix="vestal-bench-"))
        self.code = self.home / "code"
        ports = [first_port + n if first_port else free_port() for n in range(3)]
        self.url, self.agent_url = (f"http://127.0.0.1:{port}" for port in ports[:2])
        self._keeps_home = keeps_home
        self._is_closed = False
        clean = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        own = {
            "VESTAL_HOME": str(self.home),
            "VESTAL_MODELS_DIR": str(models),
            "VESTAL_MLX_PORT": str(ports[0]),
            "VESTAL_AGENT_PORT": str(ports[1]),
            "VESTAL_ORCHESTRATOR_PORT": str(ports[2]),
            "VESTAL_ORCHESTRATOR__MODE": "off",
            "VESTAL_OLLAMA__MANAGE": "off",
            "PYTHONPATH": str(self.code),
        }
        self._env = clean | own | env

    def __enter__(self) -> Self:
        try:
            self._copy_code()
            self.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the `vestal` command ---

    def up(self) -> None:
        """Run `vestal up`, which also carries out an upgrade. Raises RuntimeError, with its output, if it
        fails.
        """
        done = self.vestal("up", timeout_s=UP_TIMEOUT_S)
        if done.returncode:
            raise RuntimeError(f"`vestal up` ended with {done.returncode}:\n{done.stdout[-3000:]}")

    def recover(self) -> None:
        """Run `vestal recover --once`, which starts a dead agent, as launchd and systemd do every 300 s."""
        self.vestal("recover", "--once", timeout_s=UP_TIMEOUT_S)

    def vestal(self, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a `vestal` command in a session of its own, so that the terminal's Ctrl-C does not reach it.
        Return the finished process, whose `stdout` has all its output.

        Raises subprocess.TimeoutExpired if the command takes longer than `timeout_s` seconds, and
        RuntimeError if the stack is already closed, for example by another thread.
        """
        if self._is_closed:
            raise RuntimeError("The stack is closed.")
        return subprocess.run(
            [sys.executable, "-m", "host_agent.cli.main", *arguments],
            env=self._env,
            cwd=self.code,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            start_new_session=True,
        )

    def change_code(self, number: int) -> None:
        """Add a comment to the gateway's copy of the code if `number` is even, or to the package `vestal`,
        which the agent also runs, if it is odd.
        """
        package = ("mlx_server/gateway", "vestal")[number % 2]
        with (self.code / package / "__init__.py").open("a") as file:
            file.write(f"\n# change {number}\n")

    # --- its processes ---

    def health(self) -> dict[str, Any]:
        """Return the gateway's health. Raises OSError or ValueError if the gateway does not answer
        properly.
        """
        with urllib.request.urlopen(f"{self.url}/health", timeout=HEALTH_TIMEOUT_S) as answer:
            return dict(json.load(answer))

    def agent_answers(self) -> bool:
        """Return whether the agent answers a request."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.agent_url}/health", timeout=1):
            return True
        return False

    def pid(self, name: str) -> int | None:
        """Return the PID of the `agent`, `mlx_server` or `mlx_engine`; None if it does not run."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = int(json.loads((self.home / "run" / f"{name}.json").read_text())["pid"])
            return pid if is_alive(pid) else None
        return None

    def processes(self) -> list[psutil.Process]:
        """Return all living processes that were started for this stack, which have its home in their
        environment.
        """
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("VESTAL_HOME") == str(self.home) and is_alive(process.pid):
                    found.append(process)
        return found

    # --- the end ---

    def close(self) -> None:
        """Stop the stack, kill what is left of it, and delete its home unless it is to be kept."""
        try:
            if self.code.exists():
                with contextlib.suppress(subprocess.TimeoutExpired, RuntimeError):
                    self.vestal("down", timeout_s=DOWN_TIMEOUT_S)
        finally:
            self._is_closed = True
            self._kill_leftovers()
            if not self._keeps_home:
                shutil.rmtree(self.home, ignore_errors=True)

    def _kill_leftovers(self) -> None:
        deadline = time.monotonic() + END_S
        while (left := self.processes()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=1)

    def _copy_code(self) -> None:
        self.code.mkdir()
        for name in COPIED:
            source, target = REPO / name, self.code / name
            if source.is_dir():
                shutil.copytree(source, target)  # times are kept, so compiled files stay valid
            else:
                shutil.copy2(source, target)


def is_alive(pid: int) -> bool:
    """Return whether the process is alive; a zombie is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
