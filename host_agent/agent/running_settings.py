"""The settings that the running agent was started with, in a file, to notice that they have changed since."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vestal.best_effort.files import KeptFile
from vestal.config import Config, Home


@dataclass(frozen=True)
class RunningSettings:
    """The listener's port, and a digest of all settings (a digest because settings may hold secrets)."""

    port: int
    digest: str


def of(config: Config) -> RunningSettings:
    """Return the port and digest of `config`. Which file the settings were read from does not matter."""
    settings = config.model_dump_json(exclude={"home", "file"})
    return RunningSettings(config.agent.port, hashlib.sha256(settings.encode()).hexdigest()[:16])


def write(config: Config) -> KeptFile:
    """Write the settings of the agent that starts now, and return the file, which is to be kept."""
    file = KeptFile(_path(config.home), "settings")
    file.write(json.dumps(asdict(of(config))))
    return file


def read(home: Home) -> RunningSettings | None:
    """Return what the last agent of this home wrote, or None where there is no readable file."""
    try:
        fields = json.loads(_path(home).read_text())
        return RunningSettings(int(fields["port"]), str(fields["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def have_changed(config: Config) -> bool:
    """Return True where the last agent of this home was started with other settings than `config`."""
    return read(config.home) not in (None, of(config))


def _path(home: Home) -> Path:
    return home.run / "agent.settings"
