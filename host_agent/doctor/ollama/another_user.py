"""Ollama answers, and has no models, while its owner's folder is full of them: it runs as another user."""

import os
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from host_agent.doctor.evidence import http_question, process_table
from host_agent.doctor.finding import Finding
from host_agent.doctor.ollama import processes
from host_agent.service_manager import unit_lookup
from vestal.config import Config
from vestal.platform import commands, ports
from vestal.platform.macos import brew

NAME = "ollama_as_another_user"
OK = 200
NAMED = 3
REGISTRY = "registry.ollama.ai"


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
    if config.ollama.manage == "off" or not http_question.is_local(url):
        return
    answer = http_question.get(url.rstrip("/") + "/api/tags")
    if answer.status != OK or not isinstance(models := answer.fields.get("models"), list):
        return  # another diagnosis tells of that
    shown = {str(model.get("name")) for model in models if isinstance(model, dict)}
    unseen = owned(models_folder()) - shown
    if not unseen:
        yield Finding(NAME, "ok", f"Ollama shows {len(shown)} models, and all that this user has")
        return
    yield judge(shown, unseen, models_folder(), _server(urlsplit(url).port or 11434))


def judge(shown: Set[str], unseen: Set[str], folder: Path, server: Server) -> Finding:
    """It does not show models that this user has. Where it shows others, those may be meant."""
    level: Literal["note", "fault"] = "note" if shown else "fault"
    who = f"PID {server.pid}, user {server.user or 'unknown'}" if server.pid else "a process of another user"
    named = ", ".join(sorted(unseen)[:NAMED]) + (", ..." if len(unseen) > NAMED else "")
    evidence = f"/api/tags has {len(shown)} models, {folder} has also {named}; the server is {who}"
    if server.user == server.me:
        sentence = f"Ollama does not show {len(unseen)} models of this user: it reads another folder"
        remedy = f"stop it, unset OLLAMA_MODELS or set it to {folder}, and run `ollama serve`"
        return Finding(NAME, level, sentence, remedy, evidence)
    sentence = f"Ollama runs as {server.user or 'another user'} and does not see the models of {server.me}"
    return Finding(
        NAME, level, sentence, f"{_stop(server)}; then run `ollama serve` as {server.me}", evidence
    )


def models_folder() -> Path:
    """Where this user's models are."""
    return Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")


def owned(folder: Path) -> set[str]:
    """Names as `/api/tags` has them: one file for each, REGISTRY/NAMESPACE/MODEL/TAG."""
    files = (path for path in (folder / "manifests").glob("*/*/*/*") if path.is_file())
    return {_name(*path.parts[-4:]) for path in files}


def _name(registry: str, namespace: str, model: str, tag: str) -> str:
    if registry != REGISTRY:
        return f"{registry}/{namespace}/{model}:{tag}"
    return f"{model}:{tag}" if namespace == "library" else f"{namespace}/{model}:{tag}"


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
        found = next(iter(processes.servers(table)), None)
    by_unit = sys.platform == "linux" and bool(found) and _is_of_unit(found.pid if found else 0)
    user = process_table.user(found.uid) if found else ""
    return Server(found.pid if found else None, user, process_table.user(os.getuid()), _brew(), by_unit)


def _brew() -> brew.BrewService | None:
    listed = commands.output(unit_lookup.brew(), *brew.ARGUMENTS, timeout_s=brew.TIMEOUT_S)
    return brew.parse(listed or "").get("ollama")


def _is_of_unit(pid: int) -> bool:
    try:
        return "ollama.service" in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False
