"""One file for each diagnosis of R4.6. Each looks for evidence on this host and names the remedy."""

from collections.abc import Iterator, Sequence
from functools import partial

from host_agent.doctor import run_diagnoses
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.doctor.installation import (
    configuration,
    disk_full,
    engine_blas,
    home_folder,
    installed_jobs,
    missing_dependency,
    port_in_use,
    python_build,
)
from host_agent.doctor.memory import metal_contention, metal_out_of_memory, oom_killed, wired_memory
from host_agent.doctor.models import corrupt_cache, missing_model
from host_agent.doctor.ollama import another_user, not_running
from host_agent.doctor.run_diagnoses import Waiting
from host_agent.doctor.services import dies_at_start, orphans, unhealthy
from host_agent.doctor.unresponsive import hung, slept
from vestal.config import Config

DIAGNOSES: tuple[Diagnosis, ...] = (
    Diagnosis(home_folder.NAME, home_folder.look),
    Diagnosis(disk_full.NAME, disk_full.look),
    Diagnosis(python_build.NAME, python_build.look),
    Diagnosis(wired_memory.NAME, wired_memory.look),
    Diagnosis(port_in_use.NAME, port_in_use.look),
    Diagnosis(orphans.NAME, orphans.look),
    Diagnosis(unhealthy.NAME, unhealthy.look, 30.0),
    Diagnosis(dies_at_start.NAME, dies_at_start.look),
    Diagnosis(slept.NAME, slept.look, 40.0),  # asks each server in turn
    Diagnosis(installed_jobs.NAME, installed_jobs.look),
    Diagnosis(hung.NAME, hung.look, 40.0),
    Diagnosis(oom_killed.NAME, oom_killed.look),
    Diagnosis(metal_contention.NAME, metal_contention.look),
    Diagnosis(metal_out_of_memory.NAME, metal_out_of_memory.look),
    Diagnosis(not_running.NAME, not_running.look),
    Diagnosis(another_user.NAME, another_user.look, 40.0),  # brew is slow
    Diagnosis(missing_model.NAME, missing_model.look),
    Diagnosis(corrupt_cache.NAME, corrupt_cache.look, corrupt_cache.FOR_S + 20.0),
    Diagnosis(engine_blas.NAME, engine_blas.look),
    Diagnosis(missing_dependency.NAME, missing_dependency.look, missing_dependency.WITHIN_S + 10.0),
)


def diagnose(
    config: Config, problems: Sequence[str] = (), on_wait: Waiting = lambda names: None
) -> Iterator[list[Finding]]:
    """The findings of each diagnosis as they come. `problems`: why the settings could not be read."""
    first = Diagnosis(configuration.NAME, partial(configuration.look, problems=problems))
    yield from run_diagnoses.go((first, *DIAGNOSES), config, on_wait)


__all__ = ["DIAGNOSES", "Diagnosis", "Finding", "diagnose"]
