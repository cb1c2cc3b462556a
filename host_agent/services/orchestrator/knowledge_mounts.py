"""The knowledge folders in the containers, one below /knowledge for each agent, read-only.

The first is the compose file's own mount; the others stand in a file that `docker compose` reads beside it.
"""

import json
from pathlib import Path

from host_agent.errors import HostAgentError
from host_agent.services import IN_CONTAINERS
from host_agent.services.child_environment import knowledge_folders
from vestal.config import Config

FILE = "knowledge.compose.json"  # YAML, too


def environment(config: Config) -> dict[str, str]:
    """What docker-compose.yml asks for: the first folder, and whose it is."""
    name, path = next(iter(knowledge_folders(config).items()))
    return {"VESTAL_KNOWLEDGE_NAME": name, "VESTAL_KNOWLEDGE_PATH": str(path)}


def write(config: Config) -> list[Path]:
    """The further compose file, written anew; none where there is one folder."""
    others = list(knowledge_folders(config).items())[1:]
    if not others:
        return []
    volumes = [_mount(name, path) for name, path in others]
    file = config.home.run / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        json.dumps({"services": {name: {"volumes": volumes} for name in IN_CONTAINERS}}, indent=1)
    )
    return [file]


def check(config: Config) -> None:
    """HostAgentError names a folder that is not there: Docker would make an empty one, owned by root."""
    for name, path in knowledge_folders(config).items():
        if not path.is_dir():
            raise HostAgentError(
                f"orchestrator.knowledge: {path} (of {name}) is no folder:"
                " make it, mount its disk, or name another."
            )


def _mount(name: str, path: Path) -> dict[str, object]:
    source = str(path).replace("$", "$$")  # compose would put a variable in its place
    return {"type": "bind", "source": source, "target": f"/knowledge/{name}", "read_only": True}
