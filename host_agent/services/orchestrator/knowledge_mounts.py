"""Mount the agents' knowledge folders in the containers: read-only, one below /knowledge for each agent.

docker-compose.yml mounts the first folder itself. The other folders are mounted by a second compose file,
which this module writes.
"""

import json
import os
from pathlib import Path

from host_agent.errors import HostAgentError
from host_agent.services import IN_CONTAINERS
from host_agent.services.child_environment import knowledge_folders
from vestal.best_effort.files import write_file
from vestal.config import Config

FILE = "knowledge.compose.json"  # JSON is YAML, too


def environment(config: Config) -> dict[str, str]:
    """Return the variables with which docker-compose.yml mounts the first knowledge folder in the settings:
    the name of the agent that has this folder, and its path. The settings have at least one folder; `write`
    writes a compose file for the others.
    """
    name, path = next(iter(knowledge_folders(config).items()))
    return {"VESTAL_KNOWLEDGE_NAME": name, "VESTAL_KNOWLEDGE_PATH": str(path)}


def write(config: Config) -> list[Path]:
    """Write the second compose file, which mounts every knowledge folder but the first, and return its path
    in a list. If there is only one folder, write nothing and return []. A file that is right already is left
    alone, so that a full or read-only disk is no obstacle. Raises OSError if the file cannot be written.
    """
    others = list(knowledge_folders(config).items())[1:]
    if not others:
        return []
    volumes = [_mount(name, path) for name, path in others]
    file = config.home.run / FILE
    text = json.dumps({"services": {name: {"volumes": volumes} for name in IN_CONTAINERS}}, indent=1)
    if not _has_text(file, text):
        write_file(file, text)
    return [file]


def _has_text(file: Path, text: str) -> bool:
    try:
        return file.read_text() == text
    except (OSError, ValueError):
        return False


def check(config: Config) -> None:
    """Raise HostAgentError if a knowledge folder does not exist, because Docker would create an empty folder,
    as root.
    """
    for name, path in missing_folders(config):
        raise HostAgentError(
            f"orchestrator.knowledge: {path} (of {name}) is not a folder:"
            " make it, mount its disk, or name another."
        )


def missing_folders(config: Config) -> list[tuple[str, Path]]:
    """Return the agent's name and the path of each knowledge folder that does not exist, or that
    this user may not reach.
    """
    return [(name, path) for name, path in knowledge_folders(config).items() if not os.path.isdir(path)]


def _mount(name: str, path: Path) -> dict[str, object]:
    source = str(path).replace("$", "$$")  # compose would replace a variable
    return {"type": "bind", "source": source, "target": f"/knowledge/{name}", "read_only": True}
