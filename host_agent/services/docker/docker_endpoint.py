"""Where the Docker engine and its command are. Under launchd PATH is bare: the usual places are tried too."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EXTRA_FOLDERS = (
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/usr/bin",
    "/Applications/Docker.app/Contents/Resources/bin",
)
SOCKETS = ("/var/run/docker.sock", "~/.docker/run/docker.sock", "~/.colima/default/docker.sock")


@dataclass(frozen=True)
class Endpoint:
    """How to reach the engine: a socket's path, or the URL of a plain TCP engine."""

    socket: str | None = None
    url: str | None = None


def find_command(name: str, extra: Sequence[str] = ()) -> str | None:
    """The full path of a program, also where PATH is bare."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *EXTRA_FOLDERS, *extra]))


def find_endpoint(env: Mapping[str, str] | None = None) -> Endpoint | None:
    """As the docker command finds it: DOCKER_HOST, then the context in use, then the usual sockets."""
    env = os.environ if env is None else env
    address = env.get("DOCKER_HOST") or _context_address(env)
    if address:
        return _parse(address)
    user = Path(env.get("HOME") or Path.home())
    for place in SOCKETS:
        path = user / place[2:] if place.startswith("~/") else Path(place)
        if path.is_socket():
            return Endpoint(socket=str(path))
    return None


def _parse(address: str) -> Endpoint | None:
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        return Endpoint(socket=rest)
    if scheme in ("tcp", "http"):
        return Endpoint(url=f"http://{rest}")
    return None  # ssh:// and TLS: the orchestrator belongs on this host, beside its models


def _context_address(env: Mapping[str, str]) -> str | None:
    folder = Path(env.get("DOCKER_CONFIG") or Path(env.get("HOME") or Path.home()) / ".docker")
    try:
        name = env.get("DOCKER_CONTEXT") or json.loads((folder / "config.json").read_text()).get(
            "currentContext"
        )
        if not name or name == "default":
            return None
        digest = hashlib.sha256(name.encode()).hexdigest()
        meta = json.loads((folder / "contexts" / "meta" / digest / "meta.json").read_text())
        return str(meta["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
