"""Read the configuration file, and remember the line of each key."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vestal.config.errors import ConfigError

KeyPath = tuple[str, ...]
"""The section and the key of a setting, such as `("mlx", "port")`."""


@dataclass(frozen=True)
class YamlFile:
    """A parsed file: its `data`, and the line (from 1) of each key path."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def place(self, key: KeyPath) -> str:
        """Return the file and the line of the key, such as `vestal.yaml:7`, or of the nearest section around
        it; only the file if it contains none of them.
        """
        for length in range(len(key), 0, -1):
            if key[:length] in self.lines:
                return f"{self.path}:{self.lines[key[:length]]}"
        return str(self.path)


def read(path: Path) -> YamlFile:
    """Parse the file. Raises ConfigError, with the line, if the file cannot be read, is not YAML, or repeats
    a key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: save it as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: this is not YAML: {error.problem or error.context}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: this is not YAML: {str(error).splitlines()[0]}.") from error
    if node is None:
        return YamlFile(path)
    if not isinstance(data, dict):
        shape = "a list" if isinstance(data, list) else "a single value"
        raise ConfigError(f"{path}:1: the file must hold sections such as `mlx:`, not {shape}.")
    return YamlFile(path, data, _lines(path, node))


def _lines(path: Path, root: yaml.Node) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}
    for key, line in _walk((), root):
        if key in lines:
            raise ConfigError(f"{path}:{line}: {'.'.join(key)} is given twice (first on line {lines[key]}).")
        lines[key] = line
    return lines


def _walk(prefix: KeyPath, node: yaml.Node) -> Iterator[tuple[KeyPath, int]]:
    """Yield the key path and the line of each key below the node, whose own key path is `prefix`. The items
    of a list have their index for a key.
    """
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*prefix, str(key_node.value))
            yield key, key_node.start_mark.line + 1
            yield from _walk(key, value_node)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*prefix, str(index)), item.start_mark.line + 1
