"""Ollama answers, and has no models, while its owner's folder is full of them: it runs as another user."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from host_agent.config import Config
from host_agent.doctor import asking, ollama_processes, process_table
from host_agent.doctor.finding import Finding
from host_agent.host import brew, ports, tool
from host_agent.services.docker_endpoint import find_command

NAME = "ollama_as_another_user"
OK = 200


@dataclass(frozen=True)
class Server:
    """The running Ollama. `user` and `me` are names; `pid` is None where the system does not tell it."""

    pid: int | None
    user: str
    me: str
    service: brew.BrewService | None = None
    systemd: bool = False


def look(config: Config) -> Iterator[Finding]:
    """Only an Ollama of this machine has an owner here."""
    url = config.ollama.base_url
    if config.ollama.manage == "off" or not asking.is_local(url):
        return
    answer = asking.get(url.rstrip("/") + "/api/tags")
    if answer.status != OK or not isinstance(models := answer.fields.get("models"), list):
        return  # another diagnosis tells of that
    owned = manifests(models_folder())
    if models or not owned:
        yield Finding(NAME, "ok", f"Ollama shows {len(models)} models; this user has {len(owned)}")
        return
    yield judge(len(owned), models_folder(), _server(urlsplit(url).port or 11434))


def judge(owned: int, folder: Path, server: Server) -> Finding:
    """It shows none, and this user has some."""
    who = f"PID {server.pid}, user {server.user or 'unknown'}" if server.pid else "a process of another user"
    evidence = f"/api/tags has no models, {folder} has {owned}; the server is {who}"
    if server.user == server.me:
        sentence = "Ollama shows no models, though this user has some: it reads another folder"
        remedy = f"stop it, unset OLLAMA_MODELS or set it to {folder}, and run `ollama serve`"
        return Finding(NAME, "fault", sentence, remedy, evidence)
    sentence = f"Ollama runs as {server.user or 'another user'} and does not see the models of {server.me}"
    return Finding(
        NAME, "fault", sentence, f"{_stop(server)}; then run `ollama serve` as {server.me}", evidence
    )


def models_folder() -> Path:
    """Where this user's models are."""
    return Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")


def manifests(folder: Path) -> list[Path]:
    """One file for each model and tag: registry/namespace/model/tag."""
    return [path for path in (folder / "manifests").glob("*/*/*/*") if path.is_file()]


def _stop(server: Server) -> str:
    if server.service and server.service.runs:
        sudo = "sudo " if server.user == "root" else ""
        return f"`{sudo}brew services stop ollama`"
    if server.systemd:
        return "`sudo systemctl disable --now ollama`"
    return f"`sudo kill {server.pid}`" if server.pid else "end it as its user"


def _server(port: int) -> Server:
    held = ports.holder(port)
    table = process_table.read()
    found = table.get(held.pid) if held and held.pid else None
    if found is None:  # a Mac does not tell whose socket it is, but shows every process
        found = next(iter(ollama_processes.servers(table)), None)
    by_unit = sys.platform == "linux" and bool(found) and _is_of_unit(found.pid if found else 0)
    user = process_table.user(found.uid) if found else ""
    return Server(found.pid if found else None, user, process_table.user(os.getuid()), _brew(), by_unit)


def _brew() -> brew.BrewService | None:
    path = find_command("brew", extra=brew.PLACES)
    if path is None:
        return None
    return brew.parse(tool.output(path, *brew.ARGUMENTS, within_s=brew.WITHIN_S) or "").get("ollama")


def _is_of_unit(pid: int) -> bool:
    try:
        return "ollama.service" in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False
