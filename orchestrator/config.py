"""Read the orchestrator's settings from environment variables, because it runs in a container."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from orchestrator.errors import ConfigError

LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Config:
    """All settings of the orchestrator's processes. URLs have no trailing slash.

    A process makes at most `max_concurrent` calls to models at the same time. With Postgres, all workers
    together run at most `tasks_at_once` tasks at the same time, and `worker_id` is this process's name among
    the workers. The knowledge of the agents is in the folders in `knowledge_dir`, each with its agent's name,
    and in `knowledge_folders`, which maps agents to folders elsewhere.

    The orchestrator works in cycles: periodic rounds that check the backends and embed changed files of the
    agents' knowledge. `cycle_interval_s` is the pause between two cycles. `monitor_interval_s` is the pause
    between two health checks of the monitor, which runs independently of the cycles, while all backends are
    healthy. `nightly_hour` is the hour, in local time, at which the nightly work begins: it reads all
    knowledge files again, writes a summary of each agent's knowledge, and deletes old data.
    """

    home: Path  # the folder of the SQLite files
    token: str  # requests to the API must carry it; it is also sent to the webhook
    bind: str
    port: int
    ollama_urls: tuple[str, ...]  # the first is this machine's; empty: Ollama is not used
    mlx_urls: tuple[str, ...]
    llm_api_key: str  # sent to all backends except the first of each kind
    webhook_url: str  # where the host agent takes reports of outages; "": nothing is reported
    chat_model: str  # for agents without a model of their own
    embed_model: str
    rerank_model: str  # reranks search results; "": no reranking
    cycle_interval_s: float
    monitor_interval_s: float
    max_concurrent: int
    knowledge_dir: Path
    knowledge_folders: Mapping[str, Path]
    agents_file: Path | None  # None: the only agent is the built-in one
    database_url: str  # Postgres that orchestrators and workers share; "": SQLite in `home`
    worker_id: str
    tasks_at_once: int
    max_unfinished_tasks: int  # queued and running, of all workers together; further ones are refused
    embed_batch: int  # at most so many texts are embedded by one request
    max_answer_tokens: int
    context_tokens: int  # at most so many tokens of a model's context are used
    nightly_hour: int

    @property
    def database(self) -> Path:
        """Return the path of the SQLite file for the agents' knowledge and the records of the cycles, the
        orchestrator's periodic rounds of checks and work. With Postgres, this file is not used.
        """
        return self.home / "orchestrator.db"

    @property
    def tasks_database(self) -> Path:
        """Return the path of DBOS's SQLite file for the tasks. Knowledge and cycles are in another file
        (`database`), so that damage to one of the files does not affect the other.
        """
        return self.home / "orchestrator-tasks.db"


def load(env: Mapping[str, str] | None = None) -> Config:
    """Return the settings in `env`, by default those of the process. Raises ConfigError, which names the
    variable and the remedy, if a value is invalid or a required one is missing.
    """
    values = _Values(os.environ if env is None else env)
    home = values.path("VESTAL_HOME", "~/.vestal")
    config = Config(
        home=home,
        token=_token(values),
        bind=values.text("VESTAL_BIND", "127.0.0.1"),
        port=values.number("VESTAL_ORCHESTRATOR_PORT", 8088, 1, 65535),
        ollama_urls=values.urls("OLLAMA_BASE_URL", "http://127.0.0.1:11434"),
        mlx_urls=values.urls("MLX_API_URL", values.raw("MAC_LLM_URL") or "http://127.0.0.1:11435"),
        llm_api_key=values.raw("VESTAL_LLM_API_KEY"),
        webhook_url=values.url("RECOVERY_WEBHOOK_URL", "http://host.docker.internal:9099/recover"),
        chat_model=values.text("VESTAL_CHAT_MODEL", "smollm2:135m"),
        embed_model=values.text("VESTAL_EMBED_MODEL", "all-minilm"),
        rerank_model=values.raw("VESTAL_RERANK_MODEL"),
        cycle_interval_s=values.seconds("ORCHESTRATOR_CYCLE_INTERVAL", 300),
        monitor_interval_s=values.seconds("ORCHESTRATOR_HEALTH_MONITOR_INTERVAL", 300),
        max_concurrent=values.number("SMART_WORKER_MAX_CONCURRENT", 2, 1, 64),
        knowledge_dir=values.path("VESTAL_KNOWLEDGE_DIR", str(home / "knowledge")),
        knowledge_folders=values.folders("VESTAL_KNOWLEDGE"),
        agents_file=values.existing_file("VESTAL_AGENTS_FILE"),
        database_url=values.postgres_url("VESTAL_DATABASE_URL"),
        worker_id=values.text("VESTAL_WORKER_ID", f"{socket.gethostname()}:{os.getpid()}"),
        tasks_at_once=values.number("VESTAL_TASKS_AT_ONCE", 16, 1, 1024),
        max_unfinished_tasks=values.number("VESTAL_MAX_UNFINISHED_TASKS", 1000, 1, 1_000_000),
        embed_batch=values.number("VESTAL_EMBED_BATCH", 32, 1, 512),
        max_answer_tokens=values.number("VESTAL_MAX_ANSWER_TOKENS", 256, 1, 32768),
        context_tokens=values.number("VESTAL_CONTEXT_TOKENS", 4096, 512, 16_777_216),
        nightly_hour=values.number("NIGHTLY_HOUR", 3, 0, 23),
    )
    if not config.mlx_urls and not config.ollama_urls:
        raise ConfigError("MLX_API_URL and OLLAMA_BASE_URL are both empty; set at least one of them.")
    return config


def _token(values: _Values) -> str:
    token = values.raw("VESTAL_TOKEN")
    path = values.raw("VESTAL_TOKEN_FILE")
    if not token and path:
        try:
            token = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"VESTAL_TOKEN_FILE={path} cannot be read ({error}); give it a readable file."
            ) from None
    if not token:
        raise ConfigError(
            "VESTAL_TOKEN is not set (nor VESTAL_TOKEN_FILE); `vestal token` on the host prints it."
        )
    return token


def _is_escaped(url: str) -> bool:
    """Return False if the URL has a `#`, a `%` without two hex digits, or an `@` in the wrong place: signs
    of a password with unescaped characters, which would be misread as another part of the URL.
    """
    stray = "#" in url or url.count("@") > 1 or re.search("%(?![0-9A-Fa-f]{2})", url)
    return not stray and "@" not in urlsplit(url)._replace(netloc="").geturl()


class _Values:
    """Reads environment variables by type. An empty value counts as unset, so that the default applies. For
    the methods `url` and `urls`, an empty value means instead that the service at this address is not used.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def raw(self, name: str) -> str:
        return self._env.get(name, "").strip()

    def text(self, name: str, default: str) -> str:
        return self.raw(name) or default

    def number(self, name: str, default: int, low: int, high: int) -> int:
        given = self.raw(name)
        try:
            value = int(given) if given else default
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ConfigError(
                f"{name}={given} is not a whole number from {low} to {high}; correct or unset it."
            )
        return value

    def seconds(self, name: str, default: float) -> float:
        given = self.raw(name)
        try:
            value = float(given) if given else default
        except ValueError:
            value = 0.0
        if not 0.1 <= value <= 7 * 86400:
            raise ConfigError(
                f"{name}={given} is not a number of seconds from 0.1 to 604800; correct or unset it."
            )
        return value

    def urls(self, name: str, default: str) -> tuple[str, ...]:
        """Return the addresses in the variable `name`, a comma-separated list, without duplicates. The first
        is that of this machine's backend.

        The tuple is empty if the variable is empty: no backend of this kind is used. If only the first
        address is empty, the first element is "" and the others are used. Raises ConfigError if an address is
        invalid.
        """
        parts = [part.strip() for part in self._env.get(name, default).split(",")]
        found = dict.fromkeys(self._url(name, part, api=True) for part in parts if part)
        return ("", *found) if found and not parts[0] else tuple(found)

    def url(self, name: str, default: str) -> str:
        """Return the http address in the variable `name`; `default` if it is unset, and "" (not used) if it
        is empty. Raises ConfigError if the address is invalid.
        """
        given = self._env[name].strip() if name in self._env else default
        return self._url(name, given, api=False) if given else ""

    def postgres_url(self, name: str) -> str:
        """Return a Postgres URL for libpq; "" if the variable is unset. Raises ConfigError, which never shows
        the password, if the URL is invalid.
        """
        given = self.raw(name)
        if not given:
            return ""
        try:
            parts = urlsplit(given)
            valid = parts.scheme in ("postgres", "postgresql") and _is_escaped(given)
            valid = valid and len(parts.path) > 1 and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid:
            raise ConfigError(
                f"{name} is not like postgresql://USER:PASSWORD@HOST:5432/DATABASE (in the password,"
                " characters such as @ : / ? # [ ] % are written %40 and so on); correct or unset it."
            )
        user, at, place = parts.netloc.rpartition("@")
        netloc = user + at + self._reachable(place, parts.hostname or "")
        return urlunsplit(("postgresql", netloc, parts.path, parts.query, ""))

    def _url(self, name: str, given: str, api: bool) -> str:
        """Return the address `given` in the variable `name` without a trailing slash, and, if `api`, without
        a `/v1` or `/api` at its end. Raises ConfigError if it is not an http address.
        """
        wrong = ConfigError(
            f"{name}={given} is not an http address such as http://127.0.0.1:11434; correct it."
        )
        try:
            parts = urlsplit(given if "://" in given else f"http://{given}")
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
            (parts.hostname or "").encode(
                "idna"
            )  # as a look-up of the name does; a UnicodeError is a ValueError
        except ValueError:
            raise wrong from None
        if not valid:
            raise wrong
        path = parts.path.rstrip("/")
        if api:
            path = path.removesuffix("/v1").removesuffix("/api")
        return urlunsplit((parts.scheme, self._reachable(parts.netloc, parts.hostname or ""), path, "", ""))

    def _reachable(self, netloc: str, host: str) -> str:
        """Return `netloc` with a loopback host replaced by VESTAL_HOST_GATEWAY, if that is set.

        Inside a container, that variable is the address of the host, while loopback is the container itself.
        """
        gateway = self.raw("VESTAL_HOST_GATEWAY")
        if not gateway or host not in LOOPBACK:
            return netloc
        port = netloc.rpartition(":")[2]
        return f"{gateway}:{port}" if port.isdigit() else gateway

    def folders(self, name: str) -> dict[str, Path]:
        """Return the folders by agent from the variable `name`, a list `agent=folder,agent=folder`. Raises
        ConfigError if an entry is malformed.
        """
        found: dict[str, Path] = {}
        for part in filter(None, (p.strip() for p in self.raw(name).split(","))):
            agent, _, folder = part.partition("=")
            if not agent.strip() or not folder.strip():
                raise ConfigError(f"{name} has {part!r} where agent=folder was expected; correct it.")
            found[agent.strip()] = _expanded(name, folder.strip())
        return found

    def path(self, name: str, default: str) -> Path:
        """Return the path in the variable `name`, or `default` if the variable is unset or empty; `~` and
        `~user` are replaced by the user's home. Raises ConfigError if that user is unknown.
        """
        return _expanded(name, self.text(name, default))

    def existing_file(self, name: str) -> Path | None:
        given = self.raw(name)
        if not given:
            return None
        path = _expanded(name, given)
        try:
            is_file = path.is_file()
        except OSError as error:
            raise ConfigError(
                f"{name}={given} cannot be read ({error.strerror}); make it readable."
            ) from None
        if not is_file:
            raise ConfigError(f"{name}={given} is not a file; correct or unset it.")
        return path


def _expanded(name: str, given: str) -> Path:
    """Return the path `given`, the value of the variable `name`, with `~` or `~user` at its beginning
    replaced by the user's home. Raises ConfigError, which names the variable, if the user is unknown.
    """
    try:
        return Path(given).expanduser()
    except RuntimeError:
        message = f"{name}={given} begins with the home of a user who is unknown here; give the whole path."
        raise ConfigError(message) from None
