"""`vestal install`: the agent at login, and a recovery pass at boot and every 300 s."""

import argparse
import os
from pathlib import Path

from host_agent.config import Config, ensure_token
from host_agent.errors import HostAgentError
from host_agent.host import service_manager
from host_agent.services.child_environment import REPO, common
from host_agent.services.docker_endpoint import EXTRA_FOLDERS

KEPT = ("VESTAL_", "MLX_PRELOAD_MODELS", "OLLAMA_BASE_URL", "DOCKER_HOST", "SMART_WORKER_MAX_CONCURRENT")
SECRET = ("TOKEN", "KEY", "DATABASE_URL")


class NotInstalled(HostAgentError):
    code = "not_installed"


def run(options: argparse.Namespace, config: Config) -> int:
    units = service_manager.units(config.home, environment(config), REPO)
    commands = service_manager.commands(config.home, install=True)
    if options.dry_run:
        for unit in units:
            print(f"would write {unit.path}:\n{unit.text}")
        for command in commands:
            print(f"would run {' '.join(command)}")
        return 0
    config.home.prepare()
    ensure_token(config.home)
    for unit in units:
        _write(unit)
    for command in commands:
        problem = service_manager.run(command)
        if problem and command[0] == "launchctl":
            problem = service_manager.run(command)  # right after a bootout it fails once with error 5
        if problem:
            raise NotInstalled(f"The units are written, but not started: {problem}.")
    print("Installed: the agent starts at login; a recovery pass runs at boot and every 300 s.")
    return 0


def environment(config: Config) -> dict[str, str]:
    """What the units tell the agent: this shell's settings, without secrets, and full paths to look in."""
    told = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(KEPT) and not any(word in name for word in SECRET)
    }
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *EXTRA_FOLDERS]
    told["PATH"] = os.pathsep.join(dict.fromkeys(folder for folder in folders if folder))
    return {**told, **common(config)}


def _write(unit: service_manager.Unit) -> None:
    unit.path.parent.mkdir(parents=True, exist_ok=True)
    temporary: Path = unit.path.with_name(f".{unit.path.name}")
    temporary.write_text(unit.text)
    temporary.replace(unit.path)
    print(f"wrote {unit.path}")
