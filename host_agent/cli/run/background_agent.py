"""Start the agent in the background, and wait until it answers requests."""

import os
import signal
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path

from host_agent.agent import agent_state, single_instance
from host_agent.agent_client import HEALTH_TIMEOUT_S, AgentClient
from host_agent.errors import AgentUnreachable
from host_agent.service_manager import service_manager
from host_agent.services import child_environment, process_activity
from vestal.best_effort.output import LOG_VARIABLE
from vestal.config import Config, ensure_token
from vestal.platform.file_lock import LockHeld, hold_lock_blocking
from vestal.platform.processes import process_lookup
from vestal.supervision import ProbePolicy, ProcessIdentity, ProcessVerdict, UnansweredQuestions
from vestal.supervision.processes import log_file

START_TIMEOUT_S = 30.0
LOCK_TIMEOUT_S = 180.0
HUNG_AFTER_S = 15.0
TOKEN_TIMEOUT_S = 5.0
POLL_S = 0.05
QUESTION_PAUSE_S = 0.25
SEARCHED_LINES = 5


class AgentStart(StrEnum):
    """What `ensure_running` did, in words that a person reads."""

    ALREADY_RUNNING = "already running"
    CONTINUED = "was stopped (SIGSTOP), and goes on now"
    REPLACED = "did not answer, and was replaced; its services went on"
    STARTED = "started"


def ensure_running(config: Config, hung_after_s: float = HUNG_AFTER_S) -> AgentStart:
    """Make sure that an agent runs and answers, and return what was done for that.

    An agent that SIGSTOP has stopped is continued. An agent that hangs for `hung_after_s` seconds is killed
    and replaced; one that is only busy is waited for. A missing agent is started: by launchd or systemd if
    `vestal install` has installed a job for it, else as a background process. A background process is also
    started if the job's agent does not answer within START_TIMEOUT_S. Raises AgentUnreachable, with the
    reason, if no agent answers in the end.
    """
    config.home.prepare()
    try:
        # Without this lock, a watchdog and a person that both find the agent dead would start two.
        with hold_lock_blocking(config.home.run / "start.lock", LOCK_TIMEOUT_S):
            return _ensure_running(config, hung_after_s)
    except LockHeld as error:
        raise AgentUnreachable(f"The agent was not started: {error}; `vestal status` shows it.") from None


def kill_agent(identity: ProcessIdentity) -> None:
    """Kill an agent by SIGKILL, so that its services continue to run and the next agent adopts them.

    SIGTERM would not do, because an agent that still handles it would stop every service.
    """
    if identity.alive():
        os.kill(identity.pid, signal.SIGKILL)
    deadline = time.monotonic() + START_TIMEOUT_S
    while identity.alive() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _ensure_running(config: Config, hung_after_s: float) -> AgentStart:
    client, done = AgentClient(config), AgentStart.STARTED
    if identity := single_instance.running(config.home):
        was_suspended = process_lookup.is_suspended(identity.pid)
        if was_suspended:
            os.kill(identity.pid, signal.SIGCONT)
        why_hung = _wait_for_answer(config, client, identity, hung_after_s)
        if why_hung is None:
            client.wait_until(config.home.token.exists, TOKEN_TIMEOUT_S)  # the agent restores a lost file
            return AgentStart.CONTINUED if was_suspended else AgentStart.ALREADY_RUNNING
        if identity.alive():
            _say(f"PID {identity.pid} hangs ({why_hung}); it is replaced")
            kill_agent(identity)
            done = AgentStart.REPLACED
    ensure_token(config.home)
    if service_manager.is_agent_installed(config.home):
        for problem in service_manager.start_installed_jobs(config.home):
            print(f"vestal: {problem}", file=sys.stderr)
        if client.wait_until(client.own_agent_answers, START_TIMEOUT_S):
            return done
    _start_and_wait(config, client)
    return done


def _wait_for_answer(
    config: Config, client: AgentClient, identity: ProcessIdentity, hung_after_s: float
) -> str | None:
    """Send requests to the agent until it answers, and return None. If it hangs or has ended, return the
    reason.

    Raises AgentUnreachable if the agent listens on another port than the configured one, because the settings
    have then changed and the agent does not hang.
    """
    policy = ProbePolicy(
        interval_s=hung_after_s / 2,
        timeout_s=HEALTH_TIMEOUT_S,
        busy_limit_s=config.supervision.busy_limit_s,
    )
    silence, said = UnansweredQuestions(), False
    while True:
        before, asked_at = process_activity.read(identity.pid, config.agent.port), time.monotonic()
        if client.answers():
            return None
        now = time.monotonic()
        if not identity.alive():
            return "it has ended"
        if agent_state.listens_elsewhere(config):
            raise AgentUnreachable(str(agent_state.of_silent_agent(config)))
        after = process_activity.read(identity.pid, config.agent.port)
        silence = silence.add(asked_at, now, before, after)
        judgement = silence.judge(now, policy)
        if judgement.verdict is ProcessVerdict.HUNG:
            return judgement.evidence
        if judgement.verdict is ProcessVerdict.BUSY and not said:
            _say(f"PID {identity.pid} is waited for ({judgement.evidence})")
            said = True
        time.sleep(QUESTION_PAUSE_S)


def _say(sentence: str) -> None:
    print(f"agent: {sentence}", file=sys.stderr, flush=True)


def _start_and_wait(config: Config, client: AgentClient) -> None:
    log = config.home.logs / "agent.log"
    log_size = _size(log)
    process = _start(config, log)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not client.own_agent_answers():
        if process.poll() is not None:
            raise AgentUnreachable(f"The agent did not start: {_reason_in_log(log, log_size)}")
        if time.monotonic() > deadline:
            raise AgentUnreachable(f"The agent does not answer: {_reason_in_log(log, log_size)}")
        time.sleep(POLL_S)
    process.returncode = 0  # the agent runs on; without this, Popen would warn that nobody waited for it


def _start(config: Config, log: Path) -> subprocess.Popen[bytes]:
    output = log_file.open_log(log)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "host_agent.cli.main", "agent", "--with-watchdog"],
            env={**os.environ, **child_environment.common(config), LOG_VARIABLE: str(log)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _reason_in_log(log: Path, offset: int) -> str:
    """Return the last error message that the agent logged after byte `offset`, else the last line of
    the log.
    """
    try:
        with log.open("rb") as file:
            file.seek(offset)
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return f"it left no reason, because its log {log} cannot be read ({error.strerror})"
    prefix = "vestal: "
    sentences = [line.removeprefix(prefix) for line in lines[-SEARCHED_LINES:] if line.startswith(prefix)]
    return sentences[-1] if sentences else f"its last line is: {lines[-1] if lines else 'none'} ({log})"
