"""Ollama's installation on this machine: its program, its address, and this user's models."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from host_agent.services.child_environment import LOOPBACK
from host_agent.services.find_program import find_program
from vestal.config import Config, ConfigError, ollama_host

INSTALLED_AT = ("/Applications/Ollama.app/Contents/Resources",)
PORT = 11434


@dataclass(frozen=True)
class Address:
    """The address of Ollama. If it is `local`, `host` is an IP address of this machine."""

    url: str
    host: str
    port: int
    local: bool

    @property
    def netloc(self) -> str:
        """Return host and port as the variable OLLAMA_HOST takes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(base_url: str) -> Address:
    """Parse the URL of the Ollama server, and find out whether it names this machine."""
    parts = urlsplit(base_url)
    host = parts.hostname or "127.0.0.1"
    local = host in LOOPBACK
    host = "127.0.0.1" if host == "localhost" else host
    return Address(base_url.rstrip("/"), host, parts.port or PORT, local)


def served_at(address: Address, env: Mapping[str, str] = os.environ) -> str:
    """Return the value of OLLAMA_HOST with which the agent starts its own Ollama server: host and port of
    `address`. If OLLAMA_HOST in `env` already names this address, return its value unchanged instead, because
    it may be a wildcard: with 0.0.0.0 the server also accepts other machines.
    """
    try:
        is_users = ollama_host.base_url(env) == address.url
    except ConfigError:
        is_users = False
    return env[ollama_host.VARIABLE] if is_users else address.netloc


def program() -> str | None:
    """Return the full path of the `ollama` program, or None if it is not installed."""
    return find_program("ollama", extra_folders=INSTALLED_AT)


def installed() -> bool:
    """Return whether this machine has the `ollama` program (`ollama-mcp` is another program)."""
    return program() is not None


def has_manifests() -> bool:
    """Return whether this user's models folder has models on disk. If it has, and an Ollama server lists no
    model, that server reads another folder.
    """
    folder = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models") / "manifests"
    try:
        return any(os.path.isfile(path) for path in folder.rglob("*"))
    except OSError:
        return False


def is_replaced_by_mlx_server(config: Config, address: Address) -> bool:
    """Return whether the MLX server listens at Ollama's address, because `mlx.port` is Ollama's port."""
    return address.local and address.port == config.mlx.port
