"""Find the servers that listen but do not answer, or answer with a server error other than 503. `hung` uses
this.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from host_agent.doctor.evidence import http_get
from host_agent.services.port_check import foreign_holders
from vestal.config import Config
from vestal.platform import ports
from vestal.platform.processes import process_lookup

SERVER_ERROR = 500
UNAVAILABLE = 503  # Vestal's servers answer this while they start or recover


@dataclass(frozen=True)
class UnresponsiveServer:
    """A server that listens at `url`, but does not answer or answers with a server error. `failure` says in
    words which of these happened. `service` is the server's name, such as `mlx_server`.

    `pid` and `started_at` (seconds since 1970) are those of the process that listens at `url`. They are None
    if unknown, for example because the process belongs to another user. `suspended` is True if SIGSTOP has
    stopped this process.
    """

    service: str
    url: str
    failure: str
    pid: int | None = None
    started_at: float | None = None
    suspended: bool = False

    @property
    def title(self) -> str:
        """Return the name of the service, with the PID if it is known."""
        return f"{self.service} (PID {self.pid})" if self.pid else self.service


def find_unresponsive(config: Config, timeout_s: float = http_get.TIMEOUT_S) -> Iterator[UnresponsiveServer]:
    """Yield the servers that listen but do not answer, or answer with a server error other than 503. Ollama,
    the MLX server, the agent and the orchestrator are checked.

    Ports on which nothing or another program listens are skipped, because other diagnoses report them.
    """
    ports_of_strangers = {holder.port for _, holder in foreign_holders(config)}
    for service, url in _urls(config):
        if service != "ollama" and urlsplit(url).port in ports_of_strangers:
            continue
        answer = http_get.get(url, timeout_s)
        if answer.refused or 0 < answer.status < SERVER_ERROR or answer.status == UNAVAILABLE:
            continue
        yield _with_process(service, url, answer.failure or f"it answered {answer.status}")


def _urls(config: Config) -> Iterator[tuple[str, str]]:
    if config.ollama.manage != "off":
        yield "ollama", config.ollama.base_url.rstrip("/") + "/api/tags"
    yield "mlx_server", f"http://127.0.0.1:{config.mlx.port}/health"
    yield "agent", f"http://127.0.0.1:{config.agent.port}/health"
    if config.orchestrator.mode != "off":
        yield "orchestrator", f"http://127.0.0.1:{config.orchestrator.port}/health"


def _with_process(service: str, url: str, failure: str) -> UnresponsiveServer:
    port = urlsplit(url).port
    holder = ports.holder(port) if port and http_get.is_local(url) else None
    if holder is None or holder.pid is None:
        return UnresponsiveServer(service, url, failure)
    suspended = process_lookup.is_suspended(holder.pid)
    return UnresponsiveServer(service, url, failure, holder.pid, holder.since, suspended)
