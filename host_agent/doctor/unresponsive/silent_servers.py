"""Servers that listen and do not answer, or answer 500. Two diagnoses tell why: `slept` and `hung`."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from host_agent.doctor.evidence import http_question
from host_agent.services.port_check import strangers
from vestal.config import Config
from vestal.platform import ports
from vestal.platform.processes import process_lookup

SERVER_FAULT = 500
UNAVAILABLE = 503  # what our own say while they start or recover: an answer


@dataclass(frozen=True)
class Silent:
    """`started_at` in seconds since 1970; None where the system does not tell."""

    service: str
    url: str
    why: str
    pid: int | None = None
    started_at: float | None = None
    suspended: bool = False

    @property
    def who(self) -> str:
        return f"{self.service} (PID {self.pid})" if self.pid else self.service


def find(config: Config, within_s: float = http_question.WITHIN_S) -> Iterator[Silent]:
    """Each that is there. Where nobody listens, or a stranger does, another diagnosis tells of it."""
    held_by_strangers = {held.port for _, held in strangers(config)}
    for service, url in _urls(config):
        if service != "ollama" and urlsplit(url).port in held_by_strangers:
            continue
        answer = http_question.get(url, within_s)
        if answer.refused or 0 < answer.status < SERVER_FAULT or answer.status == UNAVAILABLE:
            continue
        yield _described(service, url, answer.why or f"it answered {answer.status}")


def by_sleep(each: Silent, woke_at: float | None) -> bool:
    """Whether it ran before the machine woke; one whose start is not told may have."""
    return woke_at is not None and (each.started_at is None or each.started_at < woke_at)


def remedy(each: Silent) -> str:
    """Ours are replaced by a pass; Ollama by whoever started it."""
    if each.service != "ollama":
        return "`vestal recover --once` replaces it"
    end = f"`kill {each.pid}`" if each.pid else "end it"
    return f"restart Ollama: {end}, then `ollama serve` (or quit its app, or `brew services restart ollama`)"


def _urls(config: Config) -> Iterator[tuple[str, str]]:
    if config.ollama.manage != "off":
        yield "ollama", config.ollama.base_url.rstrip("/") + "/api/tags"
    yield "mlx_server", f"http://127.0.0.1:{config.mlx.port}/health"
    yield "agent", f"http://127.0.0.1:{config.agent.port}/health"
    if config.orchestrator.mode != "off":
        yield "orchestrator", f"http://127.0.0.1:{config.orchestrator.port}/health"


def _described(service: str, url: str, why: str) -> Silent:
    port = urlsplit(url).port
    held = ports.holder(port) if port and http_question.is_local(url) else None
    if held is None or held.pid is None:
        return Silent(service, url, why)
    return Silent(service, url, why, held.pid, held.since, process_lookup.is_suspended(held.pid))
