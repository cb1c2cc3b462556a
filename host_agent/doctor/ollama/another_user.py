"""Diagnose an Ollama that does not show this user's models, because it runs as another user or reads another
folder.
"""

import os
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from host_agent.doctor.evidence import http_get, process_table
from host_agent.doctor.finding import Diagnosis, Finding, Level
from host_agent.doctor.ollama import processes
from host_agent.doctor.ollama.not_running import DEFAULT_PORT
from host_agent.service_manager import unit_lookup
from vestal.config import Config
from vestal.platform import commands, ports
from vestal.platform.macos import brew

NAME = "ollama_as_another_user"
HTTP_OK = 200
SHOWN_MODELS = 3
DEFAULT_REGISTRY = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"


@dataclass(frozen=True)
class OllamaServer:
    """The running Ollama server: its PID, the name of the user who runs it, and the name of the user who runs
    the doctor (`this_user`).

    If the system does not disclose the process, `pid` is None and `user` is empty. `brew_service` is
    Homebrew's service for Ollama, or None if there is none. `systemd` is True if systemd started the server.
    """

    pid: int | None
    user: str
    this_user: str
    brew_service: brew.BrewService | None = None
    systemd: bool = False


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield one finding that says whether the Ollama on this machine shows all models in this user's models
    folder.

    Yield nothing if no Ollama answers on this machine, or if Ollama is switched off in the settings.
    """
    url = config.ollama.base_url
    if config.ollama.manage == "off" or not http_get.is_local(url):
        return
    answer = http_get.get(url.rstrip("/") + "/api/tags")
    if answer.status != HTTP_OK or not isinstance(models := answer.fields.get("models"), list):
        return  # not_running and hung report that
    shown = {str(model.get("name")) for model in models if isinstance(model, dict)}
    hidden = models_in(models_folder()) - shown
    if not hidden:
        sentence = f"Ollama shows {len(shown)} models, and all that this user has."
        yield Finding(NAME, "ok", sentence)
        return
    server = _find_server(urlsplit(url).port or DEFAULT_PORT)
    yield assess_hidden_models(shown, hidden, models_folder(), server)


def assess_hidden_models(shown: Set[str], hidden: Set[str], folder: Path, server: OllamaServer) -> Finding:
    """Return the finding for an Ollama that shows the models `shown`, but not the models `hidden` in this
    user's `folder`.

    It is a fault if Ollama shows no model at all, else a note, since the user may want the models that are
    shown.
    """
    level: Level = "note" if shown else "fault"
    who = f"PID {server.pid}, user {server.user or 'unknown'}" if server.pid else "a process of another user"
    names = ", ".join(sorted(hidden)[:SHOWN_MODELS]) + (", ..." if len(hidden) > SHOWN_MODELS else "")
    evidence = f"/api/tags has {len(shown)} models, {folder} has also {names}; the server is {who}"
    if server.user == server.this_user:
        sentence = f"Ollama does not show {len(hidden)} models of this user: it reads another folder."
        remedy = f"Stop it, unset OLLAMA_MODELS or set it to {folder}, and run `ollama serve`."
        return Finding(NAME, level, sentence, remedy, evidence)
    user = server.user or "another user"
    sentence = f"Ollama runs as {user} and does not see the models of {server.this_user}."
    remedy = f"{_how_to_stop(server)}; then run `ollama serve` as {server.this_user}."
    return Finding(NAME, level, sentence, remedy, evidence)


def models_folder() -> Path:
    """Return the folder of this user's Ollama models: the value of OLLAMA_MODELS, or the default."""
    return Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")


def models_in(folder: Path) -> set[str]:
    """Return the names of the models in an Ollama models folder, written as `/api/tags` writes them.

    Ollama keeps one manifest for each model, at `manifests/REGISTRY/NAMESPACE/MODEL/TAG`.
    """
    manifests = (path for path in (folder / "manifests").glob("*/*/*/*") if path.is_file())
    return {_model_name(*path.parts[-4:]) for path in manifests}


def _model_name(registry: str, namespace: str, model: str, tag: str) -> str:
    if registry != DEFAULT_REGISTRY:
        return f"{registry}/{namespace}/{model}:{tag}"
    return f"{model}:{tag}" if namespace == DEFAULT_NAMESPACE else f"{namespace}/{model}:{tag}"


def _how_to_stop(server: OllamaServer) -> str:
    if server.brew_service and server.brew_service.runs:
        sudo = "sudo " if server.user == "root" else ""
        return f"`{sudo}brew services stop ollama`"
    if server.systemd:
        return "`sudo systemctl disable --now ollama`"
    return f"`sudo kill {server.pid}`" if server.pid else "Stop it as its user"


def _find_server(port: int) -> OllamaServer:
    holder = ports.holder(port)
    table = process_table.read()
    found = table.get(holder.pid) if holder and holder.pid else None
    if found is None:  # a Mac does not disclose whose socket it is, but shows every process
        found = next(iter(processes.servers(table)), None)
    this_user = process_table.user_name(os.getuid())
    if found is None:
        return OllamaServer(None, "", this_user, _brew_service())
    systemd = sys.platform == "linux" and _is_in_ollama_unit(found.pid)
    return OllamaServer(found.pid, process_table.user_name(found.uid), this_user, _brew_service(), systemd)


def _brew_service() -> brew.BrewService | None:
    listed = commands.output(unit_lookup.brew(), *brew.ARGUMENTS, timeout_s=brew.TIMEOUT_S)
    return brew.parse(listed or "").get("ollama")


def _is_in_ollama_unit(pid: int) -> bool:
    try:
        return "ollama.service" in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


DIAGNOSIS = Diagnosis(NAME, diagnose, 40.0)  # Homebrew's command is slow
