"""The watchdog as a program: `python -m host_agent.watchdog RUN_FOLDER AGENT_PORT`.

RUN_FOLDER is the folder `run` in Vestal's home, which holds the agent's PID file. AGENT_PORT is the port at
which the agent answers GET /health, unless its file `agent.settings` in RUN_FOLDER names another.

The agent starts its watchdog. When the agent is asked to end, it first ends the watchdog. So if the watchdog
runs and the agent does not, the agent has died: the watchdog runs `vestal recover --once`, which starts
another agent. The watchdog also runs this command if the agent does not answer GET /health. SIGTERM ends the
watchdog with exit code 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from host_agent.watchdog.restart_plan import RestartPlan
from host_agent.watchdog.socket_store import SOCKET_NAME, SocketStore
from vestal.best_effort import output
from vestal.best_effort.output import write_line
from vestal.platform.file_lock import try_lock
from vestal.supervision import PID_FILE_VARIABLE, ProcessIdentity, read_pid_file
from vestal.supervision.processes.exit_watch import wait_for_exit

RECOVER = (sys.executable, "-m", "host_agent.cli.main", "recover", "--once")
ASK_EACH_S = 60.0
ANSWER_TIMEOUT_S = 10.0
LOOK_EACH_S = 0.5


class Watchdog:
    """Watches the agent whose PID file is in the folder `run`. If this agent has died and no other one
    starts, or if the agent does not answer GET /health, the watchdog runs `command`, which is
    `vestal recover --once`. `plan` says after which delay.

    Its `sockets` keep the gateway's listening sockets for the next agent.
    """

    def __init__(
        self,
        run: Path,
        port: int,
        command: Sequence[str] = RECOVER,
        plan: RestartPlan = RestartPlan(),  # noqa: B008 - frozen
    ) -> None:
        self._run, self._port, self._command = run, port, command
        self._plan = plan
        self.sockets = SocketStore(run / SOCKET_NAME)

    async def watch(self) -> None:
        """Watch the agent, and after its end each agent that replaces it.

        Run `vestal recover --once` if the agent does not answer, or if no agent runs and none has started
        within the delay that `restart_plan` sets. Return when another watchdog takes over, or when no agent
        runs and Vestal's home folder was deleted.
        """
        alive_since = time.monotonic()
        while not self._is_superseded():
            if agent := self._agent():
                await self._until_gone_or_silent(agent)
            now = time.monotonic()
            self._plan, wait_s = self._plan.agent_died(now, now - alive_since)
            if await self._comes_back_within(wait_s):
                continue
            if self._is_superseded() or not self._run.parent.exists():  # the home was deleted
                return
            await self._recover()
            alive_since = time.monotonic()

    def _agent(self) -> ProcessIdentity | None:
        identity = read_pid_file(self._run / "agent.json")
        return identity if identity and identity.alive() else None

    def _is_superseded(self) -> bool:
        """Return whether the watchdog's PID file names another watchdog that is alive. If the run folder was
        deleted, the next agent starts another watchdog, which then takes over.
        """
        other = read_pid_file(self._run / "watchdog.json")
        return other is not None and other.pid != os.getpid() and other.alive()

    async def _until_gone_or_silent(self, agent: ProcessIdentity) -> None:
        gone = asyncio.ensure_future(wait_for_exit(agent.pid))
        try:
            while not gone.done():
                await asyncio.wait({gone}, timeout=ASK_EACH_S)
                if not gone.done() and not await self._answers():
                    write_line(sys.stdout, f"the agent (PID {agent.pid}) does not answer")
                    await self._recover()  # which judges whether it hangs
        finally:
            gone.cancel()
        write_line(sys.stdout, f"the agent (PID {agent.pid}) is gone")

    async def _comes_back_within(self, wait_s: float) -> bool:
        """Return True as soon as another agent runs, or False after `wait_s` seconds."""
        deadline = time.monotonic() + wait_s
        while self._agent() is None:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(min(LOOK_EACH_S, max(0.0, deadline - time.monotonic())))
        return True

    async def _recover(self) -> None:
        """Run `vestal recover --once`, wait until it ends, and print its exit code. Terminate it if the
        watchdog is stopped meanwhile.

        If the process cannot be started, only print the error: `watch` runs the command again later if the
        agent is still missing or silent.
        """
        try:
            code = await self._run_command()
        except (OSError, RuntimeError) as error:  # no process, descriptor or thread; Python is being replaced
            write_line(sys.stdout, f"`vestal recover --once` could not be started: {error}")
        else:
            write_line(sys.stdout, f"`vestal recover --once` ended with exit code {code}")

    async def _run_command(self) -> int:
        """Run `command` to its end, and return its exit code. Terminate it if this task is cancelled."""
        # By this variable a supervisor finds its child: what is started here is not the watchdog.
        env = {name: value for name, value in os.environ.items() if name != PID_FILE_VARIABLE}
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.DEVNULL, env=env
        )
        try:
            return await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            raise

    async def _answers(self) -> bool:
        """Return whether the agent answers GET /health."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                port = self._agent_port()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    request = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
                    writer.write(request.encode())
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        return False

    def _agent_port(self) -> int:
        """Return the port that the running agent has written to its file `agent.settings`, because an agent
        that was started after this watchdog may listen at another one. Return the watchdog's own `port` if
        the file cannot be read.
        """
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return int(json.loads((self._run / "agent.settings").read_text())["port"])
        return self._port


async def run_until_stopped(watchdog: Watchdog) -> None:
    """Watch until SIGTERM or SIGINT arrives, or another watchdog takes over."""
    watchdog.sockets.start()
    watching = asyncio.ensure_future(watchdog.watch())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, watching.cancel)
    await asyncio.wait({watching})
    watchdog.sockets.stop()
    if not watching.cancelled():
        watching.result()  # raises what ended it


def main(arguments: list[str]) -> int:
    output.protect("watchdog")
    run, port = Path(arguments[0]), int(arguments[1])
    if try_lock(run / "watchdog.lock") is None:
        write_line(sys.stdout, "another watchdog watches this agent")
        return 0
    asyncio.run(run_until_stopped(Watchdog(run, port)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
