"""`vestal logs`: the ends of the logs, and what comes after with -f."""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from host_agent.errors import HostAgentError, UnknownService
from host_agent.services import IN_CONTAINERS
from host_agent.services.docker.compose import Compose
from host_agent.services.orchestrator import mode
from vestal.config import Config

FILES = {
    "agent": "agent.log",
    "mlx_server": "mlx_server.log",
    "mlx_engine": "engine.log",
    "ollama": "ollama.log",
    "orchestrator": "orchestrator.log",
    "nightly": "nightly.log",
}
LOOK_AGAIN_S = 0.3
TAIL_BYTES = 256 * 1024


def run(options: argparse.Namespace, config: Config) -> int:
    if options.service and options.service not in FILES:
        raise UnknownService(f"There are no logs of {options.service!r}; there are: {', '.join(FILES)}.")
    wanted = [options.service] if options.service else list(FILES)
    in_containers = [name for name in wanted if name in IN_CONTAINERS] if mode.has_containers(config) else []
    paths = {name: config.home.logs / FILES[name] for name in wanted if name not in in_containers}
    with _compose_logs(options, config, in_containers):
        shown = _show_ends({name: path for name, path in paths.items() if path.exists()}, options.lines)
        if not shown and not in_containers and not options.follow:
            raise HostAgentError(
                f"There are no logs in {config.home.logs} yet: `vestal up` starts everything."
            )
        if options.follow:
            _follow(paths, shown)
    return 0


@contextlib.contextmanager
def _compose_logs(options: argparse.Namespace, config: Config, services: list[str]) -> Iterator[None]:
    if not services:
        yield
        return
    sys.stdout.flush()
    compose = Compose(config)
    follow = ["--follow"] if options.follow else []
    command = compose.command("logs", "--tail", str(options.lines), *follow, *services)
    with subprocess.Popen(command, env=dict(compose.environment()), stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            if options.follow:
                process.terminate()


def _show_ends(paths: dict[str, Path], lines: int) -> dict[str, int]:
    """Prints the last lines of each; name → how far it was read."""
    shown = {}
    for name, path in paths.items():
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            for line in file.read().decode(errors="replace").splitlines()[-lines:] if lines > 0 else []:
                _print(name, line)
            shown[name] = size
    return shown


def _follow(paths: dict[str, Path], shown: dict[str, int]) -> None:
    while True:
        for name, path in paths.items():
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                shown[name] = _show_new(name, file, shown.get(name, 0))
        sys.stdout.flush()
        time.sleep(LOOK_AGAIN_S)


def _show_new(name: str, file: BinaryIO, since: int) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(since if since <= size else 0)  # it was cut: from its new beginning
    text = file.read()
    whole = text.rfind(b"\n") + 1
    for line in text[:whole].decode(errors="replace").splitlines():
        _print(name, line)
    return file.tell() - (len(text) - whole)


def _print(name: str, line: str) -> None:
    print(f"{name:13} | {line}")
