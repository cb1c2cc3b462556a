"""A file with what the running agent was started with, which shows later whether code or settings changed."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from host_agent.upgrade import installed
from vestal.best_effort.files import KeptFile
from vestal.config import Config, Home


@dataclass(frozen=True)
class RunningSettings:
    """The listener's port, and the digest of the code and of all settings, `CODE.SETTINGS`.

    It is a digest because settings may hold secrets. Older versions wrote the digest of the settings alone.
    """

    port: int
    digest: str

    @property
    def has_code(self) -> bool:
        """Return whether the digest covers the code."""
        return "." in self.digest


def of(config: Config) -> RunningSettings:
    """Return the port and digest of `config`. Which file the settings were read from does not matter."""
    return RunningSettings(config.agent.port, installed.of_agent(config))


def write(config: Config) -> KeptFile:
    """Write the port and digest of the agent that starts now. Return the file; the caller keeps it intact."""
    file = KeptFile(_path(config.home), "settings")
    file.write(json.dumps(asdict(of(config))))
    return file


def read(home: Home) -> RunningSettings | None:
    """Return the port and digest that the last agent of this home wrote; None if no file can be read."""
    try:
        fields = json.loads(_path(home).read_text())
        return RunningSettings(int(fields["port"]), str(fields["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(home: Home) -> Path:
    return home.run / "agent.settings"
