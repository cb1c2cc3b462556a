"""Find the address of this machine's Docker engine, as the `docker` command finds it."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

# The sockets of the engine itself, of Docker Desktop if it may not write to /var/run, and of Colima.
SOCKETS = ("/var/run/docker.sock", "~/.docker/run/docker.sock", "~/.colima/default/docker.sock")


def find_endpoint(env: Mapping[str, str] | None = None) -> str | None:
    """Return the engine's URL (`unix://PATH` or `http://HOST:PORT`), or None if there is no engine to ask.

    The address comes from DOCKER_HOST, else from the docker context in use, else it is the first of the usual
    sockets that exists. `env` is the process's environment by default.
    """
    env = os.environ if env is None else env
    address = env.get("DOCKER_HOST") or _context_address(env)
    if address:
        return _supported(address)
    return _usual_socket(env)


def variables(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables with which the `docker` command uses the engine that `find_endpoint`
    finds: DOCKER_HOST, or no variable.

    No variable is needed if DOCKER_HOST is set already, or if the docker context in use names an engine.
    Otherwise DOCKER_HOST is the first of the usual sockets that exists, if any does, because the command by
    itself tries only the first socket of the list: it would not find the engine of a Colima whose context is
    not in use.
    """
    env = os.environ if env is None else env
    found = None if env.get("DOCKER_HOST") or _context_address(env) else _usual_socket(env)
    return {"DOCKER_HOST": found} if found else {}


def _usual_socket(env: Mapping[str, str]) -> str | None:
    """Return the URL of the first of SOCKETS that exists; None if there is none."""
    home = Path(env.get("HOME") or Path.home())
    for socket in SOCKETS:
        path = home / socket[2:] if socket.startswith("~/") else Path(socket)
        if _is_socket(path):
            return f"unix://{path}"
    return None


def _is_socket(path: Path) -> bool:
    """Return whether the path is a socket; False too if this user may not look into its folder."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _supported(address: str) -> str | None:
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        return address
    if scheme in ("tcp", "http"):
        return f"http://{rest}"
    return None  # ssh:// and TLS name another machine: the orchestrator belongs where its models are


def _context_address(env: Mapping[str, str]) -> str | None:
    """Return the address that the docker context in use names, or None for the default context."""
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
