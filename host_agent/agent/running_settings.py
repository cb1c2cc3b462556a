"""What the running agent was started with: tells a changed configuration from a hung agent."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vestal.config import Config, Home


@dataclass(frozen=True)
class RunningSettings:
    """The listener's port, and a digest of every setting (they may hold secrets)."""

    port: int
    digest: str


def of(config: Config) -> RunningSettings:
    """Those of this configuration. The file they came from does not count, only what they say."""
    told = config.model_dump_json(exclude={"home", "file"})
    return RunningSettings(config.agent.port, hashlib.sha256(told.encode()).hexdigest()[:16])


def write(config: Config) -> None:
    path = _path(config.home)
    path.write_text(json.dumps(asdict(of(config))))
    path.chmod(0o600)


def read(home: Home) -> RunningSettings | None:
    """None where no agent left any."""
    try:
        told = json.loads(_path(home).read_text())
        return RunningSettings(int(told["port"]), str(told["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(home: Home) -> Path:
    return home.run / "agent.settings"
