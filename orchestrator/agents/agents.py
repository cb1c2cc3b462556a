"""Read the agents: each has a role, a prompt, a model and knowledge folders of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError

LEAD = "lead"
EVERY_FOLDER = "*"
KNOWLEDGE = "knowledge"
TOOLS = (KNOWLEDGE,)  # everything that an agent can be allowed to use
FIELDS = {"role", "prompt", "model", "knowledge", "tools"}


@dataclass(frozen=True)
class Agent:
    """One agent. `knowledge` names the folders it may search: by default all for the lead, else its own."""

    name: str
    role: str
    prompt: str
    model: str
    knowledge: tuple[str, ...]
    tools: tuple[str, ...] = TOOLS

    @property
    def searches(self) -> bool:
        """Return True if the agent may search its knowledge folders."""
        return KNOWLEDGE in self.tools

    @property
    def folders(self) -> tuple[str, ...] | None:
        """Return the names of the folders to search; None means all folders."""
        return None if EVERY_FOLDER in self.knowledge else self.knowledge


def load(path: Path | None, chat_model: str) -> dict[str, Agent]:
    """Return the agents of the YAML file by name, always with a lead. Raise ConfigError if it is invalid."""
    agents = {LEAD: _lead(chat_model)}
    if path is None:
        return agents
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML ({error}); correct it.") from None
    entries = document.get("agents") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise ConfigError(f"{path} must have a mapping `agents:` of name to role and prompt.")
    for name, entry in entries.items():
        agents[str(name)] = _agent(path, str(name), entry, chat_model)
    return agents


def _lead(chat_model: str) -> Agent:
    return Agent(
        name=LEAD,
        role="the lead",
        prompt="Answer the goal in a few clear sentences. Use the notes where they help.",
        model=chat_model,
        knowledge=(EVERY_FOLDER,),
    )


def _agent(path: Path, name: str, entry: Any, chat_model: str) -> Agent:
    where = f"{path}: agents.{name}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must be a mapping with at least `prompt`.")
    unknown = sorted(set(map(str, entry)) - FIELDS)
    if unknown:
        raise ConfigError(
            f"{where} has the unknown key {unknown[0]!r}; there are: {', '.join(sorted(FIELDS))}."
        )
    if not isinstance(entry.get("prompt"), str) or not entry["prompt"].strip():
        raise ConfigError(f"{where}.prompt is missing; say in a sentence what the agent is to do.")
    tools = _names(entry, "tools", list(TOOLS), where)
    unknown = sorted(set(tools) - set(TOOLS))
    if unknown:
        raise ConfigError(f"{where}.tools has {unknown[0]!r}; there are: {', '.join(TOOLS)}.")
    return Agent(
        name=name,
        role=str(entry.get("role") or name),
        prompt=entry["prompt"].strip(),
        model=str(entry.get("model") or chat_model),
        knowledge=_names(entry, "knowledge", [name], where),
        tools=tools,
    )


def _names(entry: dict[str, Any], field: str, default: list[str], where: str) -> tuple[str, ...]:
    found = entry.get(field, default)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"{where}.{field} must be a list of names.")
    return tuple(found)
