"""Property lists from the templates in deploy/launchd. plistlib escapes every value: no text is pasted."""

import plistlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from host_agent.service_manager.unit import Written

PLACEHOLDER = re.compile(r"@([A-Z_]+)@")


def fill(template: str, values: Mapping[str, Any], also: Mapping[str, Any]) -> str:
    """The template with `@NAME@` replaced by a value of any type, and the keys of `also` added.

    KeyError for a placeholder without a value.
    """
    keys = plistlib.loads(template.encode())
    return plistlib.dumps({**_filled(keys, values), **also}, sort_keys=False).decode()


def written(text: str) -> Written:
    """What an installed list starts. ValueError or KeyError where it is none of ours."""
    keys = plistlib.loads(text.encode())
    return Written(Path(keys["ProgramArguments"][0]), Path(keys["WorkingDirectory"]))


def _filled(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(item, values) for item in node]
    whole = PLACEHOLDER.fullmatch(node) if isinstance(node, str) else None
    return values[whole[1]] if whole else node
