"""Starts the agent in the background, and waits until it listens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from host_agent.agent import running_settings, single_instance
from host_agent.agent_client import AgentClient
from host_agent.errors import AgentUnreachable
from host_agent.service_manager import service_manager
from host_agent.services import child_environment
from vestal.config import Config, ensure_token
from vestal.supervision import ProcessIdentity

LISTENS_WITHIN_S = 30.0
HUNG_AFTER_S = 15.0
LOOK_AGAIN_S = 0.05
LAST_LINES = 5


def ensure_running(config: Config, hung_after_s: float = HUNG_AFTER_S) -> bool:
    """True where one was started now, False where it ran already. AgentUnreachable says why it does not."""
    config.home.prepare()
    client = AgentClient(config)
    if identity := single_instance.running(config.home):
        if client.wait_until(lambda: client.answers() and config.home.token.exists(), hung_after_s):
            return False
        _replace_hung(config, identity)
    ensure_token(config.home)
    if service_manager.keeps_agent(config.home):
        for problem in service_manager.start(config.home):  # its agent is the one that is kept alive
            print(f"vestal: {problem}", file=sys.stderr)
        if client.wait_until(client.answers, LISTENS_WITHIN_S):
            return True
    log = config.home.logs / "agent.log"
    begin = log.stat().st_size if log.exists() else 0
    process = _start(config, log)
    deadline = time.monotonic() + LISTENS_WITHIN_S
    while not (single_instance.running(config.home) and client.answers()):
        if process.poll() is not None:
            raise AgentUnreachable(f"The agent did not start: {_last_words(log, begin)}")
        if time.monotonic() > deadline:
            raise AgentUnreachable(f"The agent does not answer: {_last_words(log, begin)}")
        time.sleep(LOOK_AGAIN_S)
    process.returncode = 0  # it is left running on purpose
    return True


def _replace_hung(config: Config, identity: ProcessIdentity) -> None:
    """Ends an agent that holds its place and does not answer."""
    began_with = running_settings.read(config.home)
    if began_with is not None and began_with.port != config.agent.port:
        raise AgentUnreachable(
            f"The agent listens on port {began_with.port}, and the configuration says {config.agent.port}: "
            "`vestal up` restarts it with the new settings."
        )
    print(f"agent: PID {identity.pid} runs and does not answer; replacing it", flush=True)
    hand_over(identity)


def hand_over(identity: ProcessIdentity) -> None:
    """Ends an agent at once; what it looked after goes on, and the next agent adopts it.

    With SIGKILL, since a SIGTERM that it still heeds would make it stop every service in order.
    """
    if identity.alive():
        os.kill(identity.pid, signal.SIGKILL)
    deadline = time.monotonic() + LISTENS_WITHIN_S
    while identity.alive() and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN_S)


def _start(config: Config, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "host_agent.cli.main", "agent"],
            env={**os.environ, **child_environment.common(config)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _last_words(log: Path, begin: int) -> str:
    """The sentence that this start ended with, or its last line."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    told = [line.removeprefix("vestal: ") for line in lines[-LAST_LINES:] if line.startswith("vestal: ")]
    return told[-1] if told else f"its last line is: {lines[-1] if lines else 'none'} ({log})"
