"""One file for each diagnosis of R4.6. Each looks for evidence on this host and names the remedy."""

from collections.abc import Callable, Iterator

from host_agent.config import Config
from host_agent.doctor import (
    engine_blas,
    installed_units,
    missing_dependency,
    ollama_not_running,
    port_in_use,
)
from host_agent.doctor.finding import Finding

DIAGNOSES: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    missing_dependency.look,
    port_in_use.look,
    ollama_not_running.look,
    engine_blas.look,
    installed_units.look,
)


def diagnose(config: Config) -> list[Finding]:
    """Every finding. One diagnosis that fails does not silence the others."""
    findings: list[Finding] = []
    for look in DIAGNOSES:
        try:
            findings += look(config)
        except Exception as error:
            name = look.__module__.rpartition(".")[2]
            findings.append(Finding(name, "note", f"could not be looked at: {error!r}"))
    return findings


__all__ = ["DIAGNOSES", "Finding", "diagnose"]
