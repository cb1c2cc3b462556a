"""`vestal models suggest`: recommend a model for each use, such as chat, code or embeddings. Each recommended
model fits into this machine's memory, or into that of a Mac with the memory that `--ram` names.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict, dataclass

from host_agent.cli.table import Cell, Column, print_table
from host_agent.doctor.memory import docker_share
from host_agent.errors import DockerUnavailable, InvalidOption
from mlx_server.memory_forecast.fit import context_text, default_limit_bytes, metal_limit_bytes
from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.model_store import suggest
from mlx_server.model_store.forecasts import (
    METAL,
    METAL_STEP_TOKENS,
    ON_METAL,
    PREFILL_STEP_TOKENS,
    THIS_MACHINE,
    machine_limit_bytes,
    wired_limit_bytes,
)
from vestal.config import Config
from vestal.config.units import format_size, size_bytes
from vestal.platform import memory

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("memory at 8k", align="right"),
    Column("longest context", align="right"),
    Column("why", wraps=True),
)


@dataclass(frozen=True)
class Machine:
    """The memory of a machine, of which models may use `limit_bytes`.

    `docker_bytes` is what Docker's virtual machine may use; 0 if there is none. `metal_limit_bytes` is None
    if the machine has no Metal.
    """

    ram_bytes: int
    limit_bytes: int
    is_mac: bool
    metal_limit_bytes: int | None = None
    docker_bytes: int = 0


def run(options: argparse.Namespace, config: Config) -> int:
    """Print the recommended model for each task. Return 1 if no recommended model fits, else 0.

    Raises InvalidOption if the value of `--ram` is no size.
    """
    machine = _supposed(options.ram) if options.ram else _this_machine(config)
    arithmetic, step_tokens = _arithmetic(machine)
    choices = suggest.choose(machine.limit_bytes, arithmetic, step_tokens)
    if options.json:
        body = {"machine": asdict(machine), "models": [choice.as_json() for choice in choices]}
        print(json.dumps(body, ensure_ascii=False))
    else:
        print(_sentence(machine))
        print_table(COLUMNS, [_row(choice) for choice in choices])
        for choice in choices:
            if choice.suggestion:
                print(choice.command)
    return 0 if any(choice.suggestion for choice in choices) else 1


def _supposed(ram: str) -> Machine:
    """Return the machine that the option `--ram` describes: a Mac with that much memory and no Docker.

    Raises InvalidOption if `ram` is no size.
    """
    try:
        total = size_bytes(ram)
    except ValueError as error:
        raise InvalidOption(f"--ram {ram} is {error}.") from error
    metal = metal_limit_bytes(total)
    return Machine(total, default_limit_bytes(total, metal), True, metal)


def _this_machine(config: Config) -> Machine:
    total = memory.read().total_bytes
    docker = _docker_bytes(total) if ON_METAL else 0
    limit = machine_limit_bytes(config)
    if docker and config.mlx.memory_limit_bytes is None:
        limit = min(limit, default_limit_bytes(max(total - docker, 1)))
    metal = metal_limit_bytes(total, wired_limit_bytes()) if ON_METAL else None
    return Machine(total, limit, ON_METAL, metal, docker)


def _docker_bytes(total_bytes: int) -> int:
    """Return the memory of Docker's virtual machine; 0 if Docker runs without one or does not answer.

    `total_bytes` is this machine's memory. A Docker engine that reports about this size runs without a
    virtual machine.
    """
    try:
        docker = asyncio.run(docker_share.docker_memory_bytes())
    except DockerUnavailable:
        return 0
    return docker if docker < docker_share.SAME_MEMORY * total_bytes else 0


def _arithmetic(machine: Machine) -> tuple[Arithmetic, int]:
    return (METAL, METAL_STEP_TOKENS) if machine.is_mac else (THIS_MACHINE, PREFILL_STEP_TOKENS)


def _sentence(machine: Machine) -> str:
    parts = [
        f"of {format_size(machine.ram_bytes)} of memory, models may have {format_size(machine.limit_bytes)}"
    ]
    if machine.metal_limit_bytes:
        parts.append(f"Metal's limit is {format_size(machine.metal_limit_bytes)}")
    if machine.docker_bytes:
        parts.append(f"Docker's virtual machine may take {format_size(machine.docker_bytes)}")
    if not machine.is_mac:
        parts.append(
            "MLX's build for the CPU computes in float32, which takes up to eight times the file's size"
        )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _row(choice: suggest.Choice) -> tuple[Cell, ...]:
    if choice.suggestion is None or choice.fit is None:
        return choice.task, ("none fits", "red"), "", "", ""
    return (
        choice.task,
        choice.suggestion.name,
        format_size(choice.fit.needed_bytes),
        context_text(choice.longest_context_tokens),
        f"{choice.suggestion.reason} ({choice.suggestion.license})",
    )
