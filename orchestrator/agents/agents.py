"""Load the agents from their YAML file: each has a role, a prompt, a model and knowledge folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.agents import agents_file
from orchestrator.agents.agents_file import AgentsFile

LEAD = "lead"
EVERY_FOLDER = "*"
KNOWLEDGE = "knowledge"
TOOLS = (KNOWLEDGE,)  # everything that an agent can be allowed to use
FIELDS = {"role", "prompt", "model", "knowledge", "tools"}


@dataclass(frozen=True)
class Agent:
    """One agent. `knowledge` names the folders that it may search, where `*` means all folders. `tools` names
    what it may use; the search (`knowledge`) is the only tool.

    The built-in agent `lead` may search all folders. Other agents may by default search the folder with their
    own name.
    """

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
        """Return the names of the folders that the agent may search; None means all folders."""
        return None if EVERY_FOLDER in self.knowledge else self.knowledge


def load(path: Path | None, chat_model: str) -> dict[str, Agent]:
    """Return the agents in the YAML file by name. If the file has no agent named `lead`, the built-in one is
    added; if `path` is None, it is the only agent.

    An agent without a model uses `chat_model`. Raises ConfigError, which names the file and the line, if the
    file has a mistake.
    """
    agents = {LEAD: _lead(chat_model)}
    if path is None:
        return agents
    file = agents_file.read(path)
    for name in file.agents:
        agents[name] = _agent(file, name, chat_model)
    return agents


def _lead(chat_model: str) -> Agent:
    return Agent(
        name=LEAD,
        role="the lead",
        prompt="Answer the goal in a few clear sentences. Use the notes where they help.",
        model=chat_model,
        knowledge=(EVERY_FOLDER,),
    )


def _agent(file: AgentsFile, name: str, chat_model: str) -> Agent:
    entry, where = file.agents[name], ("agents", name)
    if not isinstance(entry, dict):
        raise file.error(where, "must be a mapping with at least `prompt`.")
    for key in map(str, entry):
        if key not in FIELDS:
            raise file.error((*where, key), f"is an unknown key; there are: {', '.join(sorted(FIELDS))}.")
    prompt = _text(file, name, "prompt", "")
    if not prompt:
        raise file.error((*where, "prompt"), "is missing; say in a sentence what the agent is to do.")
    tools = _names(file, name, "tools", list(TOOLS))
    for tool in tools:
        if tool not in TOOLS:
            raise file.error((*where, "tools"), f"has {tool!r}; there are: {', '.join(TOOLS)}.")
    return Agent(
        name=name,
        role=_text(file, name, "role", name),
        prompt=prompt,
        model=_text(file, name, "model", chat_model),
        knowledge=_names(file, name, "knowledge", [name]),
        tools=tools,
    )


def _text(file: AgentsFile, name: str, field: str, default: str) -> str:
    found = file.agents[name].get(field)
    if isinstance(found, dict | list):
        raise file.error(("agents", name, field), "must be text.")
    return default if found is None else str(found).strip() or default


def _names(file: AgentsFile, name: str, field: str, default: list[str]) -> tuple[str, ...]:
    found = file.agents[name].get(field, default)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise file.error(("agents", name, field), "must be a list of names.")
    return tuple(found)
