"""`vestal logs`: show the last lines of the logs and, with -f, new lines as they are written."""

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
from host_agent.service_logs import LOG_FILES, log_path
from host_agent.services import IN_CONTAINERS
from host_agent.services.docker.compose import Compose
from host_agent.services.orchestrator import mode
from vestal.config import Config

POLL_S = 0.3
TAIL_BYTES = 256 * 1024


def run(options: argparse.Namespace, config: Config) -> int:
    if options.service and options.service not in LOG_FILES:
        services = ", ".join(LOG_FILES)
        raise UnknownService(f"There is no log of {options.service!r}. The services are: {services}.")
    wanted = [options.service] if options.service else list(LOG_FILES)
    in_containers = [name for name in wanted if name in IN_CONTAINERS] if mode.has_containers(config) else []
    paths = {name: log_path(config.home.logs, name) for name in wanted if name not in in_containers}
    with _compose_logs(options, config, in_containers):
        existing = {name: path for name, path in paths.items() if path.exists()}
        offsets = _print_tails(existing, options.lines)
        if not offsets and not in_containers and not options.follow:
            raise HostAgentError(
                f"There are no logs in {config.home.logs} yet: `vestal up` starts everything."
            )
        if options.follow:
            _follow(paths, offsets)
    return 0


@contextlib.contextmanager
def _compose_logs(options: argparse.Namespace, config: Config, services: list[str]) -> Iterator[None]:
    """Run `docker compose logs` for these services during the `with` block."""
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


def _print_tails(paths: dict[str, Path], lines: int) -> dict[str, int]:
    """Print the last lines of each log, and return the offset in bytes up to which each was read."""
    offsets = {}
    for name, path in paths.items():
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            for line in file.read().decode(errors="replace").splitlines()[-lines:] if lines > 0 else []:
                _print_line(name, line)
            offsets[name] = size
    return offsets


def _follow(paths: dict[str, Path], offsets: dict[str, int]) -> None:
    """Print new lines of each log until interrupted."""
    while True:
        for name, path in paths.items():
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                offsets[name] = _print_new_lines(name, file, offsets.get(name, 0))
        sys.stdout.flush()
        time.sleep(POLL_S)


def _print_new_lines(name: str, file: BinaryIO, offset: int) -> int:
    """Print the complete lines after `offset`, and return the offset after them."""
    size = file.seek(0, os.SEEK_END)
    file.seek(offset if offset <= size else 0)  # a shorter file was rotated: read it from its beginning
    text = file.read()
    end = text.rfind(b"\n") + 1
    for line in text[:end].decode(errors="replace").splitlines():
        _print_line(name, line)
    return file.tell() - (len(text) - end)


def _print_line(name: str, line: str) -> None:
    print(f"{name:13} | {line}")
