"""Start the agent in the background, and wait until it listens."""

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

START_TIMEOUT_S = 30.0
HUNG_AFTER_S = 15.0
POLL_S = 0.05
SEARCHED_LINES = 5


def ensure_running(config: Config, hung_after_s: float = HUNG_AFTER_S) -> bool:
    """Return True where an agent was started now, and False where one already ran.

    An agent that does not answer within `hung_after_s` is replaced. Where a service manager restarts the
    agent, that one starts it. Raises AgentUnreachable with the reason where no agent answers in the end.
    """
    config.home.prepare()
    client = AgentClient(config)
    if identity := single_instance.running(config.home):
        if client.wait_until(lambda: client.answers() and config.home.token.exists(), hung_after_s):
            return False
        _replace_hung(config, identity)
    ensure_token(config.home)
    if service_manager.is_agent_installed(config.home):
        for problem in service_manager.start_installed_jobs(config.home):
            print(f"vestal: {problem}", file=sys.stderr)
        if client.wait_until(client.answers, START_TIMEOUT_S):
            return True
    _start_and_wait(config, client)
    return True


def kill_agent(identity: ProcessIdentity) -> None:
    """Kill an agent so that its services go on running; the next agent adopts them.

    SIGKILL, because an agent that still handles SIGTERM would stop every service.
    """
    if identity.alive():
        os.kill(identity.pid, signal.SIGKILL)
    deadline = time.monotonic() + START_TIMEOUT_S
    while identity.alive() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _replace_hung(config: Config, identity: ProcessIdentity) -> None:
    """Kill an agent that runs and does not answer.

    Raises AgentUnreachable where it was started with another port: it is not hung, the settings have changed.
    """
    started_with = running_settings.read(config.home)
    if started_with is not None and started_with.port != config.agent.port:
        raise AgentUnreachable(
            f"The agent listens on port {started_with.port}, and the configuration says {config.agent.port}: "
            "`vestal up` restarts it with the new settings."
        )
    print(f"agent: PID {identity.pid} runs and does not answer; replacing it", flush=True)
    kill_agent(identity)


def _start_and_wait(config: Config, client: AgentClient) -> None:
    log = config.home.logs / "agent.log"
    log_size = log.stat().st_size if log.exists() else 0
    process = _start(config, log)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (single_instance.running(config.home) and client.answers()):
        if process.poll() is not None:
            raise AgentUnreachable(f"The agent did not start: {_reason_in_log(log, log_size)}")
        if time.monotonic() > deadline:
            raise AgentUnreachable(f"The agent does not answer: {_reason_in_log(log, log_size)}")
        time.sleep(POLL_S)
    process.returncode = 0  # it goes on running; without this, Popen would warn that nobody waited for it


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


def _reason_in_log(log: Path, offset: int) -> str:
    """Return the sentence that the agent logged last after byte `offset`, or the log's last line."""
    with log.open("rb") as file:
        file.seek(offset)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    prefix = "vestal: "
    sentences = [line.removeprefix(prefix) for line in lines[-SEARCHED_LINES:] if line.startswith(prefix)]
    return sentences[-1] if sentences else f"its last line is: {lines[-1] if lines else 'none'} ({log})"
