"""A file that says which code and settings the running agent was started with, so that later changes are
noticed.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from host_agent.upgrade import installed
from vestal.best_effort.files import KeptFile
from vestal.config import Config, Home


@dataclass(frozen=True)
class RunningSettings:
    """The port that the agent listens on, and the digest of its code and settings as `CODE.SETTINGS`.

    The settings are stored as a digest because they may hold secrets. Older versions wrote the digest of the
    settings alone.
    """

    port: int
    digest: str

    @property
    def has_code(self) -> bool:
        """Return whether `digest` covers Vestal's code too. Older versions of Vestal wrote a digest of the
        settings alone.
        """
        return "." in self.digest


def of(config: Config) -> RunningSettings:
    """Return the port and digest of `config`. The path of the file that the settings come from is not part of
    the digest.
    """
    return RunningSettings(config.agent.port, installed.of_agent(config))


def write(config: Config) -> KeptFile:
    """Write the port of the agent that is starting, and the digest of its code and settings, to a file in the
    home folder. Later commands of `vestal` read them there. Return the file, which the caller must write
    again if it is deleted or changed.
    """
    file = KeptFile(_path(config.home), "settings")
    file.write(json.dumps(asdict(of(config))))
    return file


def read(home: Home) -> RunningSettings | None:
    """Return the port, and the digest of code and settings, with which the last agent of this home was
    started; None if the file is missing or invalid.
    """
    try:
        fields = json.loads(_path(home).read_text())
        return RunningSettings(int(fields["port"]), str(fields["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(home: Home) -> Path:
    return home.run / "agent.settings"
