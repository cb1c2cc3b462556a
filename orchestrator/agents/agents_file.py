"""Parse the YAML file of the agents, and record the line of each key for error messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    import yaml

KeyPath = tuple[str, ...]
"""The keys that lead to a place in the file, such as `("agents", "reader", "prompt")`."""

MAX_DEPTH = 3  # agents, NAME, FIELD


@dataclass(frozen=True)
class AgentsFile:
    """A parsed file: its mapping `agents`, and the line (from 1) of each key path."""

    path: Path
    agents: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def error(self, key: KeyPath, reason: str) -> ConfigError:
        """Return an error with the file, the line and the key. For a missing key, the line is the line of its
        nearest parent.
        """
        line = next((self.lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.lines), 1)
        return ConfigError(f"{self.path}:{line}: {'.'.join(key)} {reason}")


def read(path: Path) -> AgentsFile:
    """Parse the file. Raises ConfigError, with the line, if it is unreadable, not YAML, has no mapping
    `agents`, or repeats a key.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); make it readable.") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{path}:{line}: this is not YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"{path}:{_line_of(error, text)}: this is not YAML: {reason}.") from None
    lines = _lines(path, node)
    agents = document.get("agents") if isinstance(document, dict) else None
    if not isinstance(agents, dict):
        line = lines.get(("agents",), 1)
        raise ConfigError(f"{path}:{line}: there must be a mapping `agents:` of name to role and prompt.")
    return AgentsFile(path, {str(name): entry for name, entry in agents.items()}, lines)


def _line_of(error: Exception, text: str) -> int:
    """Return the line (from 1) of the YAML file's `text` at the position that `error` names; 1 if it names
    none.
    """
    position = getattr(error, "position", None)
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 1


def _lines(path: Path, root: yaml.Node | None) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}
    for key, line in _walk((), root):
        if key in lines:
            raise ConfigError(f"{path}:{line}: {'.'.join(key)} is given twice (first on line {lines[key]}).")
        lines[key] = line
    return lines


def _walk(prefix: KeyPath, node: yaml.Node | None) -> Iterator[tuple[KeyPath, int]]:
    """Yield the key path and the line (from 1) of each key in the mapping `node`, whose own key path is
    `prefix`, and in the mappings inside it, down to the fields of the agents (MAX_DEPTH). Yield nothing if
    `node` is not a mapping.
    """
    import yaml

    if not isinstance(node, yaml.MappingNode) or len(prefix) >= MAX_DEPTH:
        return
    for key_node, value_node in node.value:
        key = (*prefix, str(key_node.value))
        yield key, key_node.start_mark.line + 1
        yield from _walk(key, value_node)
