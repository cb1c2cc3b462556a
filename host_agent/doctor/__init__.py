"""Find out what is wrong with this machine, and name the remedy: the diagnoses of `vestal doctor`.

To add a diagnosis, write a module in its folder (memory, ollama, unresponsive, installation,
models or services), as follows, and add its DIAGNOSIS to the list below.

1. `diagnose(config)` yields one Finding for each fault or note, or a single one with the level `ok`. It reads
   its evidence with the modules of `evidence`, and changes nothing on the machine.
2. A pure function, `assess_…`, turns the evidence into a Finding, so that a unit test can pass recorded
   evidence. `tests/unit/host_agent/doctor` has examples.
3. `DIAGNOSIS = Diagnosis(NAME, diagnose)`, with `timeout_s` if it may take longer than 20 s.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from host_agent.doctor import runner
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
from host_agent.doctor.memory import docker_share, metal, oom_killed, wired_memory
from host_agent.doctor.models import corrupt_cache, hub, missing_model
from host_agent.doctor.ollama import another_user, not_running
from host_agent.doctor.runner import OnWait
from host_agent.doctor.services import dies_at_start, orphans, unhealthy
from host_agent.doctor.unresponsive import hung
from vestal.config import Config

DIAGNOSES: tuple[Diagnosis, ...] = (
    home_folder.DIAGNOSIS,
    disk_full.DIAGNOSIS,
    python_build.DIAGNOSIS,
    wired_memory.DIAGNOSIS,
    docker_share.DIAGNOSIS,
    port_in_use.DIAGNOSIS,
    orphans.DIAGNOSIS,
    unhealthy.DIAGNOSIS,
    dies_at_start.DIAGNOSIS,
    hung.HUNG_SINCE_SLEEP,
    installed_jobs.DIAGNOSIS,
    hung.HUNG,
    oom_killed.DIAGNOSIS,
    metal.CONTENTION,
    metal.OUT_OF_MEMORY,
    not_running.DIAGNOSIS,
    another_user.DIAGNOSIS,
    missing_model.DIAGNOSIS,
    hub.DIAGNOSIS,
    corrupt_cache.DIAGNOSIS,
    engine_blas.DIAGNOSIS,
    missing_dependency.DIAGNOSIS,
)


def diagnose(
    config: Config, problems: Sequence[str] = (), on_wait: OnWait = lambda names: None
) -> Iterator[list[Finding]]:
    """Run all diagnoses in parallel, and yield the list of findings of each, in the order of DIAGNOSES.

    `problems` say why the settings are invalid; `config` then has the defaults. While diagnoses run,
    `on_wait` is called from time to time with the names of those that have not ended.
    """
    first = Diagnosis(configuration.NAME, partial(configuration.diagnose, problems=problems))
    yield from runner.run((first, *DIAGNOSES), config, on_wait)


__all__ = ["DIAGNOSES", "Diagnosis", "Finding", "diagnose"]
