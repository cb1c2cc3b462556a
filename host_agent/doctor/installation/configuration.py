"""Diagnose errors in the settings or in the agents' file, and processes that run older code or settings."""

from collections.abc import Iterator, Sequence

from host_agent.agent import outdated
from host_agent.doctor.finding import Finding
from host_agent.services.orchestrator import agents_file
from vestal.config import Config

NAME = "configuration"


def diagnose(config: Config, problems: Sequence[str] = ()) -> Iterator[Finding]:
    """Yield a fault for each problem with the settings or the agents' file or, if there is none, a note for
    each running process that was started with older code or settings than the present ones.

    If nothing is wrong, yield one finding `ok`. `problems` say why the settings are invalid; `config` then
    has the defaults.
    """
    for problem in problems:
        remedy = "Correct it. Until then, everything below is checked with the defaults."
        yield Finding(NAME, "fault", f"{problem.rstrip('.')}.", remedy)
    if problems:
        return
    if mistake := agents_file.find_mistake(config):
        yield Finding(NAME, "fault", mistake, "Correct it, then run `vestal up`.")
        return
    if why := outdated.parts(config):
        for part, reason in why.items():
            yield Finding(NAME, "note", f"The process {part} is out of date: {reason}.", outdated.REMEDY)
        return
    source = f"The settings in {config.file} are valid." if config.file else "The defaults are in force."
    yield Finding(NAME, "ok", source)
