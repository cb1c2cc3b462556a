"""Child specs of the orchestrator and of `nightly`, the process for long knowledge work at night, for when
both run as children of the agent and not in containers.
"""

import http
import json
import sys
import time

import aiohttp

from host_agent.installed import digests
from host_agent.services import NIGHTLY, ORCHESTRATOR, child_environment, http_probe, process_activity
from host_agent.services.configured_restart_policy import restart_policy
from host_agent.services.find_process import find_supervised
from host_agent.services.http_probe import NoAnswer
from vestal.best_effort.disks import find_obstacle
from vestal.config import Config
from vestal.supervision import ChildSpec, Probe, ProbeResult, State

HEARTBEAT = "nightly.heartbeat"
HEARTBEAT_STALE_S = 60.0


def specs(config: Config, session: aiohttp.ClientSession) -> tuple[ChildSpec, ...]:
    """Return the child specs of the orchestrator and of `nightly`, the process for long knowledge work at
    night, in the order in which they start. `session` sends the orchestrator's health probes.
    """

    async def orchestrator_answers(pid: int) -> ProbeResult:
        url = f"http://127.0.0.1:{config.orchestrator.port}/health"
        try:
            reply = await http_probe.get(session, url)
        except NoAnswer as error:
            return ProbeResult(False, f"{url}: {error}", answered=False)
        ok = reply.status == http.HTTPStatus.OK
        return ProbeResult(ok, "" if ok else f"{url} answered {reply.status}")

    async def nightly_beats(pid: int) -> ProbeResult:
        try:
            age_s = time.time() - (config.home.root / HEARTBEAT).stat().st_mtime
        except OSError:
            age_s = None
        if age_s is not None and age_s < HEARTBEAT_STALE_S:
            return ProbeResult(True)
        if find_obstacle(config.home.root):  # it may be alive although its heartbeat file cannot be written
            return ProbeResult(True, "its heartbeat cannot be written", State.DEGRADED)
        detail = "no heartbeat yet" if age_s is None else f"the last heartbeat is {age_s:.0f} s old"
        return ProbeResult(False, detail, answered=False)

    return (
        _spec(config, ORCHESTRATOR, "run", orchestrator_answers, config.orchestrator.port),
        _spec(config, NIGHTLY, "nightly", nightly_beats, None),
    )


def settings_text(config: Config) -> str:
    """Return, as JSON, the settings that are passed to the orchestrator and to `nightly`, the process for
    long knowledge work at night. An upgrade compares digests of the code and of this text to find out whether
    the running processes are out of date.
    """
    return json.dumps(dict(child_environment.native_orchestrator(config)), sort_keys=True)


def _spec(config: Config, name: str, command: str, probe: Probe, port: int | None) -> ChildSpec:
    home = config.home
    return ChildSpec(
        name=name,
        command=(sys.executable, "-m", "orchestrator", command),
        env={
            **child_environment.native_orchestrator(config),
            digests.DIGEST_VARIABLE: digests.digest(name, settings_text(config)),
        },
        log_path=home.logs / f"{name}.log",
        pid_file=home.run / f"{name}.json",
        find=find_supervised,
        ready=probe,
        health=probe,
        activity=process_activity.reader(port),
        policy=restart_policy(config.supervision),
    )
