"""What there is of Ollama on this machine: its program, its address, the models that its owner has."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from host_agent.services.child_environment import LOOPBACK
from host_agent.services.find_program import find_program
from vestal.config import Config

INSTALLED_AT = ("/Applications/Ollama.app/Contents/Resources",)
PORT = 11434


@dataclass(frozen=True)
class Address:
    """Where Ollama is asked. `host` is an IP address where it is this machine."""

    url: str
    host: str
    port: int
    local: bool

    @property
    def netloc(self) -> str:
        """As OLLAMA_HOST takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(base_url: str) -> Address:
    """`ollama.base_url` taken apart."""
    parts = urlsplit(base_url)
    host = parts.hostname or "127.0.0.1"
    local = host in LOOPBACK
    host = "127.0.0.1" if host == "localhost" else host
    return Address(base_url.rstrip("/"), host, parts.port or PORT, local)


def program() -> str | None:
    """The full path of `ollama`, also where PATH is bare."""
    return find_program("ollama", extra_folders=INSTALLED_AT)


def installed() -> bool:
    """Whether this machine has the `ollama` program (`ollama-mcp` is not it)."""
    return program() is not None


def has_manifests() -> bool:
    """Whether this user has models: a server that lists none is another user's, or looks elsewhere."""
    folder = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models") / "manifests"
    try:
        return any(path.is_file() for path in folder.rglob("*"))
    except OSError:
        return False


def stands_in(config: Config, where: Address) -> bool:
    """Whether our own MLX server stands where Ollama would (mlx.port is Ollama's)."""
    return where.local and where.port == config.mlx.port
