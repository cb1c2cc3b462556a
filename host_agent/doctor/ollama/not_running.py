"""Diagnose an installed Ollama whose server does not run. A process named `ollama-mcp` is not the server."""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from host_agent.doctor.evidence import http_get, process_table
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.doctor.ollama import processes
from host_agent.services import ollama
from vestal.config import Config
from vestal.platform import ports
from vestal.platform.processes.ps import PsProcess

NAME = "ollama_not_running"
DEFAULT_PORT = 11434
REMEDY = "Run `ollama serve` as the user who owns the models."
USE_OTHER = "Set OLLAMA_BASE_URL, or OLLAMA_HOST, to the address of the `ollama serve` that runs, or end it."


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield one finding that says whether an Ollama server runs at the address `ollama.base_url`.

    It is a fault if no server runs there, and a note if Ollama is not installed or is switched off in the
    settings, or if another program has its port.
    """
    url = _base_url(config)
    if config.ollama.manage == "off":
        yield Finding(NAME, "note", "Ollama is switched off in the configuration (ollama.manage).")
    elif not http_get.is_local(url):
        yield _check_remote(url)
    else:
        yield _check_local(config, urlsplit(url).port or DEFAULT_PORT)


def evidence(table: Mapping[int, PsProcess]) -> str:
    """Return a sentence about the Ollama processes in `table`, for the case that nothing listens on Ollama's
    port.
    """
    if running := processes.servers(table):
        at = ", ".join(ports.listening_at(running[0].pid)) or "elsewhere"
        return f"`ollama serve` runs (PID {running[0].pid}) and listens at {at}"
    similar = processes.lookalikes(table)
    if not similar:
        return "no `ollama serve` runs"
    program, pid = similar[0].command.split()[0], similar[0].pid
    return f"no `ollama serve` runs; {program} (PID {pid}) runs and is not it"


def _base_url(config: Config) -> str:
    return config.ollama.base_url.rstrip("/")


def _check_remote(url: str) -> Finding:
    answer = http_get.get(f"{url}/api/version")
    if answer.status:
        return Finding(NAME, "ok", f"Ollama answers at {url}.")
    remedy = "Start it on that machine, or correct ollama.base_url."
    return Finding(NAME, "fault", f"No Ollama answers at {url} ({answer.failure}).", remedy)


def check_owner_of_port(config: Config) -> Iterator[Finding]:
    """Yield a finding that says whether the process that listens on Ollama's port is Ollama.

    Yield nothing if no process listens there, if the MLX server is configured to use this port, or if Ollama
    is on another machine or switched off in the settings.
    """
    if config.ollama.manage != "off" and http_get.is_local(_base_url(config)):
        port = urlsplit(_base_url(config)).port or DEFAULT_PORT
        if port != config.mlx.port and (holder := ports.holder(port)) is not None:
            yield _assess_holder(config, port, holder)


def _check_local(config: Config, port: int) -> Finding:
    holder = ports.holder(port)
    return _assess_silence(port) if holder is None else _assess_holder(config, port, holder)


def _assess_holder(config: Config, port: int, holder: ports.PortHolder) -> Finding:
    if port == config.mlx.port:
        return Finding(NAME, "note", f"The MLX server listens on port {port} in place of Ollama.")
    if holder.name and "ollama" not in f"{holder.name} {holder.command}".lower():
        sentence = f"Port {port} is not Ollama's: {holder.name} (PID {holder.pid}) holds it."
        remedy = "End it, or set OLLAMA_BASE_URL to the address of Ollama."
        return Finding(NAME, "note", sentence, remedy, holder.command)
    if not holder.name and "version" not in http_get.get(f"{_base_url(config)}/api/version").fields:
        sentence = f"Port {port} is held by another user's process, which does not answer as Ollama does."
        return Finding(NAME, "note", sentence, f"`sudo lsof -nP -iTCP:{port} -sTCP:LISTEN` names it.")
    return Finding(NAME, "ok", f"Ollama listens on port {port}.", "", holder.command)


def _assess_silence(port: int) -> Finding:
    if not ollama.installed():
        return Finding(NAME, "note", "Ollama is not installed; Vestal works without it.")
    sentence = f"Ollama is installed, and nothing listens on port {port}."
    table = process_table.read()
    remedy = USE_OTHER if processes.servers(table) else REMEDY
    return Finding(NAME, "fault", sentence, remedy, evidence(table))


DIAGNOSIS = Diagnosis(NAME, diagnose)
