"""Run the stack into which faults are injected, with its home on a small disk of its own and a stand-in for
Ollama.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults.outcomes import AGENT, MLX, OLLAMA, Entry
from benchmarks.faults.probing import Load, long_answers, probes_by_get, probes_of_model, probes_once
from benchmarks.processes.gateway import free_port
from benchmarks.processes.stack import StackProcess, is_alive
from benchmarks.scenario import progress
from tests.children import stand_in_ollama

SETTINGS = {
    "VESTAL_SUPERVISION__MAX_RESTARTS": "10000",
    "VESTAL_SUPERVISION__BREAKER_FAILURES": "10000",
    "VESTAL_MLX__PROMPT_CACHE_DISK": "64m",
}
"""Settings that keep circuit breakers from opening, because the benchmark causes more deaths than they allow.
All times are the defaults.
"""
DISK_MB = 2048
"""The size of the small disk. `vestal up` refuses a disk with less than 1 GiB free."""
STABLE_S = 14.0
"""How many seconds a process must have run before a fault. One that dies younger than about 10 s may be
restarted late by design.
"""
STEADY_WITHIN_S = 120.0
LOOK_S = 0.1
ANSWER_WITHIN_S = 3.0


class FaultStack(StackProcess):
    """A stack whose disk can be filled and, if `clock` is given, whose clocks can be set forward.
    `first_port` is the first of its four ports; 0 means free ones. `env` has further environment variables
    for its processes.

    `clock` is the path of a library that the stack's processes preload. The library adds the seconds in the
    file $VESTAL_FAULT_CLOCK to the clocks that continue during a machine's sleep.
    """

    def __init__(self, *, first_port: int = 0, clock: Path | None = None, **env: str) -> None:
        self.changes = itertools.count(1, 2)  # odd numbers change the agent's code, too
        self.slept_s = 0
        self.tools = Path(tempfile.mkdtemp(prefix="vestal-faults-"))
        self._ollama_port = first_port + 3 if first_port else free_port()
        self._clock_file = self.tools / "clock"
        self._clock_file.write_bytes(bytes(8))
        more = self._ollama()
        if clock is not None:
            more |= {"LD_PRELOAD": str(clock), "VESTAL_FAULT_CLOCK": str(self._clock_file)}
        super().__init__(keeps_home=False, first_port=first_port, **(SETTINGS | more | env))
        self.has_small_disk = self._mount()

    def _ollama(self) -> dict[str, str]:
        program = stand_in_ollama.install(self.tools / "bin")
        return {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "HOME": str(self.tools),
            "STAND_IN_OLLAMA": str(self.tools / "ollama.json"),
            "OLLAMA_HOST": f"127.0.0.1:{self._ollama_port}",
            "OLLAMA_BASE_URL": f"http://127.0.0.1:{self._ollama_port}",
            "VESTAL_OLLAMA__MANAGE": "auto",
        }

    def _mount(self) -> bool:
        """Mount a small disk on the home, if this user may. Return whether that was possible."""
        if not can_mount():
            return False
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", "none", str(self.home)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def close(self) -> None:
        """Stop the stack as its base class does, unmount the small disk that held the stack's home, and
        delete the remaining files.
        """
        try:
            super().close()
        finally:
            if self.has_small_disk:
                subprocess.run(["umount", "--lazy", str(self.home)], capture_output=True)
                with contextlib.suppress(OSError):
                    self.home.rmdir()
            subprocess.run(["rm", "-rf", str(self.tools)], capture_output=True)

    # --- what the faults need ---

    def living_pid(self, name: str) -> int:
        """Return the PID of a running process of the stack. Raises RuntimeError if the process does
        not run.
        """
        pid = self.pid(name)
        if pid is None:
            raise RuntimeError(f"{name} does not run, so no fault can be made to it.")
        return pid

    def set_clocks_forward(self, seconds: int) -> None:
        """Add `seconds` to the clocks that continue during a machine's sleep, for all processes of
        the stack.
        """
        self.slept_s += seconds
        with self._clock_file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as page:
            page[:8] = self.slept_s.to_bytes(8, sys.byteorder, signed=True)

    # --- what is observed ---

    def loads(self, stream: str) -> list[Load]:
        """Return the loads that send requests before, during and after a fault. `stream` names the service
        whose recovery is measured: MLX, AGENT or OLLAMA.
        """
        model = [probes_of_model(MLX, self.url), long_answers(MLX, self.url)]
        if stream == AGENT:
            return [*model, probes_by_get(AGENT, f"{self.agent_url}/health")]
        if stream == OLLAMA:
            body = {"model": "smollm2:135m", "prompt": "one", "stream": False}
            return [probes_once(OLLAMA, f"http://127.0.0.1:{self._ollama_port}/api/generate", body)]
        return model

    def entries(self, since: int) -> list[tuple[int, Entry]]:
        """Return the journal's events after number `since`, with their numbers. If the stack's clocks were
        set forward by `set_clocks_forward`, the times of later events are converted back to the machine's own
        clock.

        Raises OSError or ValueError if the agent does not answer properly.
        """
        found: list[tuple[int, Entry]] = []
        while True:
            page = self.ask_agent(f"/journal?since={found[-1][0] if found else since}")["events"]
            for each in page:
                at = each["ts"] - self.slept_s if each["ts"] > time.time() + 60 else each["ts"]
                entry = Entry(at, each["component"], each["event"], each["cause"], each["fields"] or {})
                found.append((each["seq"], entry))
            if not page:
                return found

    def newest_entry(self) -> int:
        """Return the number of the newest event in the journal; 0 if there is none. Raises OSError or
        ValueError if the agent does not answer properly.
        """
        return max((int(each["seq"]) for each in self.ask_agent("/journal?newest=1")["events"]), default=0)

    def ask_agent(self, path: str) -> dict[str, Any]:
        """Return the JSON object that the agent answers to a GET of `path`. Raises OSError if there is no
        answer, and ValueError if it is not JSON.
        """
        token = (self.home / "token").read_text().strip()
        request = urllib.request.Request(self.agent_url + path, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as answer:
            return dict(json.load(answer))

    def is_whole(self) -> bool:
        """Return whether gateway, engine, agent and Ollama all serve."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return self.health()["status"] == "ok" and bool(self.ask_agent("/status")["healthy"])
        return False

    def age_s(self, name: str) -> float:
        """Return for how many seconds a process of the stack has run; 0.0 if it does not run."""
        with contextlib.suppress(psutil.Error):
            if pid := self.pid(name):
                return time.time() - psutil.Process(pid).create_time()
        return 0.0

    def until_steady(self, names: tuple[str, ...]) -> None:
        """Wait until all services of the stack serve, and the processes in `names` have run for STABLE_S
        seconds. Raises TimeoutError if that takes longer than STEADY_WITHIN_S seconds.
        """
        steady = lambda: self.is_whole() and all(self.age_s(name) >= STABLE_S for name in names)  # noqa: E731
        if not until(steady, STEADY_WITHIN_S):
            raise TimeoutError(f"The stack was not steady within {STEADY_WITHIN_S:g} s.")

    def replaced(self, before: dict[str, int | None]) -> bool:
        """Return whether each process in `before` runs with another PID than it had."""
        return all((pid := self.pid(name)) and pid != old and is_alive(pid) for name, old in before.items())

    def help(self) -> None:
        """Run `vestal up`, as a person would if the stack does not serve again."""
        progress("the stack does not serve again by itself: `vestal up`")
        self.up()


def can_mount() -> bool:
    """Return whether this user may mount a disk, which only root on Linux may."""
    return sys.platform == "linux" and os.getuid() == 0


def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until `condition` holds, for at most `timeout_s` seconds. Return whether it does."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_S)
    return True
