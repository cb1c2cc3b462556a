"""Read the configuration file, and remember the line of each key. Also parse YAML in the environment."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from vestal.config.errors import ConfigError

MAX_DEPTH, MAX_VALUES = 20, 100_000
_ENDLESS = "it has too many levels or values, or an alias of a section stands inside that section"

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
        node, data = parse(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: this is not YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: this is not YAML: {str(error).splitlines()[0]}.") from error
    if node is None:
        return YamlFile(path)
    if not isinstance(data, dict):
        shape = "a list" if isinstance(data, list) else "a single value"
        raise ConfigError(f"{path}:1: the file must hold sections such as `mlx:`, not {shape}.")
    return YamlFile(path, data, _lines(path, node))


def parse(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the root node of the YAML in `text`, and the value that it stands for. Both are None if the text
    is empty.

    Raises yaml.YAMLError, and nothing else, if the text is invalid. The text is also invalid if a value
    looks like a date or another type but cannot be converted to it, such as 2024-13-01; if a value contains
    itself; or if there are more than MAX_DEPTH levels or MAX_VALUES values.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        _refuse_endless(node)
        # The construction changes its nodes where a mapping is merged into another by `<<`.
        return yaml.compose(text, Loader=_Loader), loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(_ENDLESS) from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """A YAML loader that raises, for a value that it cannot convert, an error with the value's line. PyYAML
    itself raises ValueError, KeyError and others, without a line.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Hashable:
        try:
            value: Hashable = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # raises ValueError for thousands of digits, as any message about it would
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            text = f'"{node.value[:60]}"' if isinstance(node, yaml.ScalarNode) else "it"
            problem = f"{text} is not a valid {node.tag.rpartition(':')[2]}; put it in quotes if it is text"
            raise ConstructorError(None, None, problem, node.start_mark) from error
        return value


def _refuse_endless(root: yaml.Node) -> None:
    """Raise ConstructorError, with the line, if a value under `root` is nested deeper than MAX_DEPTH or
    contains itself, or if there are more than MAX_VALUES values.
    """
    pending, count = [(root, 0)], 0
    while pending:
        node, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise ConstructorError(None, None, _ENDLESS, node.start_mark)
        if isinstance(node, yaml.MappingNode):
            pending += [(inner, depth + 1) for pair in node.value for inner in pair]
        elif isinstance(node, yaml.SequenceNode):
            pending += [(inner, depth + 1) for inner in node.value]


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
