"""Look at Ollama's runners: their CPU time, the slots of a `llama-server`, the end of Ollama's log, and the
connections of the server to them.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp
import psutil

from host_agent.services import http_probe
from host_agent.services.http_probe import AnswerTimeout, NoAnswer
from host_agent.services.ollama.ownership import Owner, OwnerKind
from host_agent.services.ollama.runner_readings import (
    SHOWS_NOTHING,
    STEP_RUNS,
    Reading,
    RunnerActivity,
    RunnerReading,
    read_log,
    read_slots,
)
from vestal.platform.macos import brew
from vestal.platform.processes import process_lookup
from vestal.platform.processes.process_snapshot import ProcessSnapshot

SAMPLE_S = 0.5
SLOTS_TIMEOUT_S = 2.0
LOG_TAIL_BYTES = 64 * 1024
PORT_OPTION = "--port"
MLX_ENGINE_OPTION = "--mlx-engine"


class RunnerLook:
    """Observes the runners of one Ollama server.

    `runners` returns the server's runners. `log` returns the path of its log, or None if that is unknown.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        runners: Callable[[], tuple[ProcessSnapshot, ...]],
        log: Callable[[], Path | None],
    ) -> None:
        self._session, self._runners, self._log = session, runners, log

    async def readings(self) -> tuple[RunnerReading, ...]:
        """Return for each runner of the server what it does, from its GET /slots or else from the server's
        log, how many CPU cores it uses, and whether its server is connected to it. A runner whose /slots does
        not answer within SLOTS_TIMEOUT_S counts as working, because it does not answer during a step of its
        computation.
        """
        runners = await asyncio.to_thread(self._runners)
        connected = await asyncio.to_thread(lambda: [_is_connected(runner) for runner in runners])
        slots = asyncio.gather(*map(self._slots, runners))
        cores, readings = await asyncio.gather(_cores(runners), slots)
        if any(reading.activity is RunnerActivity.HIDDEN for reading in readings):
            from_log = await asyncio.to_thread(_read_log_file, self._log())
            readings = [from_log if r.activity is RunnerActivity.HIDDEN else r for r in readings]
        pids = (runner.pid for runner in runners)
        return tuple(RunnerReading(*one) for one in zip(pids, cores, readings, connected, strict=True))

    async def _slots(self, runner: ProcessSnapshot) -> Reading:
        port = port_of(runner)
        if port is None:
            return SHOWS_NOTHING
        try:
            url = f"http://127.0.0.1:{port}/slots"
            return read_slots(await http_probe.get(self._session, url, SLOTS_TIMEOUT_S))
        except AnswerTimeout:  # the loop that answers /slots also computes, one step at a time
            return STEP_RUNS
        except NoAnswer:
            return SHOWS_NOTHING


def port_of(runner: ProcessSnapshot) -> int | None:
    """Return the port that Ollama has given to its runner, from the runner's command line; None if there is
    none.
    """
    words = runner.words
    after = [second for first, second in zip(words, words[1:], strict=False) if first == PORT_OPTION]
    return int(after[0]) if after and after[0].isdecimal() and 0 < int(after[0]) <= 65535 else None


def log_of(owner: Owner, own_log: Path) -> Path | None:
    """Return the path of the log of an Ollama server; None if its output goes to no known file. The place
    depends on `owner`, who starts and restarts the server: it is `own_log` for the agent, the log of
    Ollama.app or of Homebrew, else the file to which the server's stderr is redirected (Linux only).
    """
    if owner.kind is OwnerKind.OURS:
        return own_log
    if owner.kind is OwnerKind.APP:
        return Path.home() / ".ollama" / "logs" / "server.log"
    if owner.kind is OwnerKind.BREW:
        found = (Path(folder) / "ollama.log" for folder in brew.LOGS)
        return next((path for path in found if os.path.isfile(path)), None)
    try:
        stderr = Path(os.readlink(f"/proc/{owner.pid}/fd/2"))  # Linux: a server whose output is redirected
    except OSError:
        return None
    return stderr if os.path.isfile(stderr) else None


def _is_connected(runner: ProcessSnapshot) -> bool:
    """Return whether the server, the runner's parent, has a connection to the runner's port for a request of
    a client. Return False if the server's connections cannot be read, as for another user's process.

    The server of an MLX runner also keeps a connection for itself: at each GET /api/ps, such as this agent's,
    it asks the runner how much memory it uses (Ollama's x/mlxrunner/client.go).
    """
    port = port_of(runner)
    try:
        sockets = psutil.Process(runner.ppid).net_connections(kind="tcp") if port and runner.ppid > 1 else []
    except psutil.Error:
        return False
    connections = sum(
        bool(entry.status == psutil.CONN_ESTABLISHED and entry.raddr and entry.raddr.port == port)
        for entry in sockets
    )
    return connections > (1 if MLX_ENGINE_OPTION in runner.words else 0)


async def _cores(runners: Sequence[ProcessSnapshot]) -> list[float]:
    """Return how many cores each runner uses at present."""
    pids = [runner.pid for runner in runners]
    before = list(map(process_lookup.cpu_s, pids))
    await asyncio.sleep(SAMPLE_S)
    after = map(process_lookup.cpu_s, pids)
    return [max(0.0, (now - then) / SAMPLE_S) for then, now in zip(before, after, strict=True)]


def _read_log_file(path: Path | None) -> Reading:
    if path is None:
        return SHOWS_NOTHING
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            offset = file.seek(max(0, size - LOG_TAIL_BYTES))
            raw = file.read(LOG_TAIL_BYTES)
    except OSError:
        return SHOWS_NOTHING
    lines = []
    for line in raw.splitlines(keepends=True):
        lines.append((offset, line.decode(errors="replace")))
        offset += len(line)
    return read_log(lines)
