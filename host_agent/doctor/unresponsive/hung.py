"""Two diagnoses of servers that listen but do not answer: one for the servers that ran before the machine's
last sleep, and one for all others.

After a sleep, Metal's context may be lost. A server that ran before the sleep then hangs, or answers 500,
until it is restarted.
"""

import time
from collections.abc import Callable, Iterator

from host_agent.doctor.evidence import http_get, journal_tail
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.doctor.unresponsive.server_probe import UnresponsiveServer, find_unresponsive
from host_agent.services import AGENT
from vestal.config import Config
from vestal.platform import wake_time
from vestal.supervision.sleep_detector import awake_s, boot_s

SINCE_SLEEP_NAME = "slept"
NAME = "hung"
CLOCK_DRIFT_S = 5.0
WAKE_EVENTS = ("machine_woke",)
WEEK_S = 7 * 86_400.0

LastWakeTime = Callable[[Config], float | None]
"""A function that returns when the machine last woke, in seconds since 1970, or None if unknown."""


def last_wake_time(config: Config) -> float | None:
    """Return when the machine last woke (seconds since 1970), from the system or the agent's journal.

    Return None if the machine has not slept since boot, or if neither source has the time.
    """
    since = time.time() - min(WEEK_S, boot_s())
    events = journal_tail.events(config.home, WAKE_EVENTS, since)
    times = [wake_time.last_wake_time() or 0.0, *(float(event["ts"]) for event in events)]
    return max(times) or None


def diagnose_hung_since_sleep(
    config: Config, last_wake: LastWakeTime = last_wake_time, timeout_s: float = http_get.TIMEOUT_S
) -> Iterator[Finding]:
    """Yield a fault for each server that does not answer and that ran before the machine last woke."""
    woke_at = last_wake(config)
    if woke_at is None:
        yield _assess_unknown_wake(max(0.0, boot_s() - awake_s()))
        return
    servers = find_unresponsive(config, timeout_s)
    found = [
        assess_hung_since_sleep(server, woke_at) for server in servers if ran_before_wake(server, woke_at)
    ]
    ok_sentence = f"Everything that ran through the sleep answers again (woke {_clock(woke_at)})."
    yield from found or [Finding(SINCE_SLEEP_NAME, "ok", ok_sentence)]


def diagnose_hung(
    config: Config, last_wake: LastWakeTime = last_wake_time, timeout_s: float = http_get.TIMEOUT_S
) -> Iterator[Finding]:
    """Yield a fault for each server that does not answer within `timeout_s`, or answers with a server error
    other than 503. If there is none, yield one finding `ok`.

    A server that may have run before the machine last woke is left out, because `diagnose_hung_since_sleep`
    reports it. `last_wake` returns when the machine last woke.
    """
    woke_at = last_wake(config)
    servers = find_unresponsive(config, timeout_s)
    found = [assess_hung(server) for server in servers if not ran_before_wake(server, woke_at)]
    ok_sentence = "Every server that listens on one of Vestal's ports answers."
    yield from found or [Finding(NAME, "ok", ok_sentence)]


def ran_before_wake(server: UnresponsiveServer, woke_at: float | None) -> bool:
    """Return whether the server started before the machine woke, or its start is unknown.

    Return False if `woke_at` is None.
    """
    return woke_at is not None and (server.started_at is None or server.started_at < woke_at)


def assess_hung_since_sleep(server: UnresponsiveServer, woke_at: float) -> Finding:
    """Return the fault for a server that has not answered since the machine woke."""
    evidence = f"{server.url}: {server.failure}; the machine woke at {_clock(woke_at)}, and it ran before"
    sentence = f"{server.title} has hung since the machine slept."
    return Finding(SINCE_SLEEP_NAME, "fault", sentence, _remedy(server), evidence)


def assess_hung(server: UnresponsiveServer) -> Finding:
    """Return the fault for a server that hangs or that SIGSTOP has suspended."""
    evidence = f"{server.url}: {server.failure}"
    if server.suspended:
        sentence = f"{server.title} is stopped (SIGSTOP) and does not answer."
        remedy = f"`kill -CONT {server.pid}` continues it"
        remedy += "; so does `vestal recover --once`." if server.service == AGENT else "."
        return Finding(NAME, "fault", sentence, remedy, evidence)
    return Finding(NAME, "fault", f"{server.title} hangs.", _remedy(server), evidence)


def _remedy(server: UnresponsiveServer) -> str:
    """Return the remedy for a server that hangs: a recovery pass for Vestal's own servers, a restart by hand
    for Ollama.
    """
    if server.service != "ollama":
        return "`vestal recover --once` replaces it."
    stop = f"`kill {server.pid}`" if server.pid else "stop it"
    return (
        f"Restart Ollama: {stop}, then `ollama serve` (or quit its app, or `brew services restart ollama`)."
    )


def _assess_unknown_wake(slept_s: float) -> Finding:
    if slept_s > CLOCK_DRIFT_S:
        sentence = f"The machine slept for {slept_s:.0f} s, and does not say when it woke."
        return Finding(SINCE_SLEEP_NAME, "note", sentence)
    return Finding(SINCE_SLEEP_NAME, "ok", "The machine has not slept since it was booted.")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


# The timeouts are long, because each diagnosis asks all servers one after another.
HUNG_SINCE_SLEEP = Diagnosis(SINCE_SLEEP_NAME, diagnose_hung_since_sleep, 40.0)
HUNG = Diagnosis(NAME, diagnose_hung, 40.0)
