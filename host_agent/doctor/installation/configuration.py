"""The settings are wrong, or the agent still runs with earlier ones."""

from collections.abc import Iterator, Sequence

from host_agent.agent import running_settings, single_instance
from host_agent.doctor.finding import Finding
from vestal.config import Config

NAME = "configuration"


def look(config: Config, problems: Sequence[str] = ()) -> Iterator[Finding]:
    """`problems` are those that kept the settings from being read; `config` then has the defaults."""
    for problem in problems:
        remedy = "correct it; until then all below is looked at with the defaults"
        yield Finding(NAME, "fault", problem.rstrip("."), remedy)
    if problems:
        return
    began_with = running_settings.read(config.home)
    if single_instance.running(config.home) and began_with not in (None, running_settings.of(config)):
        yield Finding(
            NAME, "note", "the agent still runs with earlier settings", "`vestal up` applies the new ones"
        )
        return
    yield Finding(
        NAME, "ok", f"the settings in {config.file} are sound" if config.file else "the defaults are in force"
    )
