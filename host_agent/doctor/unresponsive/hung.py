"""A server listens and does not answer, and no sleep explains it."""

from collections.abc import Callable, Iterator

from host_agent.doctor.evidence import http_question
from host_agent.doctor.finding import Finding
from host_agent.doctor.unresponsive import silent_servers, wake_evidence
from host_agent.doctor.unresponsive.silent_servers import Silent, by_sleep, remedy
from vestal.config import Config

NAME = "hung"


def look(
    config: Config,
    last_wake: Callable[[Config], float | None] = wake_evidence.last,
    within_s: float = http_question.WITHIN_S,
) -> Iterator[Finding]:
    """Ollama, the MLX server, the agent and the orchestrator."""
    woke_at = last_wake(config)
    found = [each for each in silent_servers.find(config, within_s) if not by_sleep(each, woke_at)]
    for each in found:
        yield judge(each)
    if not found:
        yield Finding(NAME, "ok", "whatever listens on a port of ours answers")


def judge(each: Silent) -> Finding:
    if each.suspended:
        sentence = f"{each.who} is suspended (SIGSTOP) and answers nobody"
        return Finding(NAME, "fault", sentence, f"`kill -CONT {each.pid}`", f"{each.url}: {each.why}")
    return Finding(NAME, "fault", f"{each.who} hangs", remedy(each), f"{each.url}: {each.why}")
