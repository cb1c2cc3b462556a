"""Diagnose whether Docker may use so much memory that the models to load do not fit."""

import asyncio
from collections.abc import Iterator

from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.errors import DockerUnavailable
from host_agent.sentences import as_sentence
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.docker.docker_engine import START_IT
from host_agent.services.orchestrator import mode
from mlx_server.model_store import survey
from vestal.config import Config, name_key, units
from vestal.config.units import format_size
from vestal.platform import memory

NAME = "docker_share"
WITHOUT_DOCKER = "VESTAL_ORCHESTRATOR__MODE=native runs the orchestrator without Docker"
SMALLER = "name smaller models in mlx.preload"
GIVE_LESS = f"Give Docker less memory (Docker Desktop: Settings, Resources), or {SMALLER}."
LOWER_LIMIT = f"Lower VESTAL_ORCHESTRATOR__MEM_LIMIT, or {SMALLER}."
SAME_MEMORY = 0.97  # a Docker engine without a virtual machine reports the memory of the whole machine
MOST_OF_MACHINE = 0.5  # the largest fraction that Docker's virtual machine should take
CONTAINERS = 2  # the orchestrator and nightly; workers are counted in addition


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield a finding on whether the memory that Docker may use and the models that are loaded at the start
    fit into this machine's memory together.
    """
    chosen = config.orchestrator.mode
    if chosen in ("off", "native"):
        yield Finding(NAME, "ok", f"No container takes memory: orchestrator.mode is {chosen}.")
        return
    try:
        docker_bytes = asyncio.run(docker_memory_bytes())
    except DockerUnavailable as error:
        if config.orchestrator.mode == "docker" or mode.has_containers(config):
            yield Finding(NAME, "fault", str(error), as_sentence(f"{START_IT}; {WITHOUT_DOCKER}"))
        else:
            yield Finding(NAME, "ok", f"No container takes memory: {error}")
        return
    limit_bytes = units.size_bytes(config.orchestrator.mem_limit)
    containers = CONTAINERS + config.orchestrator.workers
    yield assess_share(
        memory.read().total_bytes, docker_bytes, containers * limit_bytes, _weights_bytes(config)
    )


def assess_share(total_bytes: int, docker_bytes: int, limits_bytes: int, weights_bytes: int) -> Finding:
    """Return a finding that says whether the memory that Docker may use leaves enough of `total_bytes` for
    the models.

    `docker_bytes` is the memory that all containers together may use; with Docker Desktop, that of its
    virtual machine. `limits_bytes` is the sum of the containers' memory limits, `weights_bytes` the size of
    the installed models that are loaded at the start.
    """
    machine, models = format_size(total_bytes), format_size(weights_bytes)
    if docker_bytes < SAME_MEMORY * total_bytes:
        share = f"Docker's virtual machine may take {format_size(docker_bytes)} of the machine's {machine}"
        if docker_bytes + weights_bytes > total_bytes:
            sentence = f"{share}, and the models of mlx.preload need {models}: both do not fit."
            return Finding(NAME, "fault", sentence, GIVE_LESS)
        if docker_bytes > MOST_OF_MACHINE * total_bytes:
            return Finding(NAME, "note", f"{share}, which models cannot use.", GIVE_LESS)
        return Finding(NAME, "ok", f"{share}.")
    share = f"The containers may take {format_size(limits_bytes)} of the machine's {machine}"
    if limits_bytes + weights_bytes > total_bytes:
        sentence = f"{share}, and the models of mlx.preload need {models}: both at once do not fit."
        return Finding(NAME, "note", sentence, LOWER_LIMIT)
    return Finding(NAME, "ok", f"{share}.")


def _weights_bytes(config: Config) -> int:
    """Return the size in bytes of the weights of the installed models that `mlx.preload` names."""
    preloaded = set(map(name_key, config.mlx.preload))
    return sum(entry.weights_bytes for entry in survey(config)[0] if name_key(entry.name) in preloaded)


async def docker_memory_bytes() -> int:
    """Return how many bytes of memory all containers together may use: this machine's memory, or that of
    Docker Desktop's virtual machine. Raises DockerUnavailable if Docker does not answer.
    """
    api = DockerApi()
    try:
        return await api.memory_bytes()
    finally:
        await api.close()


DIAGNOSIS = Diagnosis(NAME, diagnose)
