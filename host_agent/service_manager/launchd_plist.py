"""Property lists from the templates in deploy/launchd. plistlib escapes every value. Pure."""

import plistlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from host_agent.service_manager.jobs import InstalledProgram

PLACEHOLDER = re.compile(r"@([A-Z_]+)@")


def fill(template: str, values: Mapping[str, Any], extra_keys: Mapping[str, Any]) -> str:
    """Return the property list `template` with its placeholders filled in, and with `extra_keys` added at the
    top level.

    A placeholder is a string that is `@NAME@` as a whole. It is replaced by `values["NAME"]`, which may have
    any type that a property list can hold, such as a dictionary or an integer. Raises KeyError if a
    placeholder has no value.
    """
    keys = plistlib.loads(template.encode())
    return plistlib.dumps({**_filled(keys, values), **extra_keys}, sort_keys=False).decode()


def installed_program(text: str) -> InstalledProgram:
    """Return the Python and the checkout that a property list starts. Raises ValueError or KeyError if the
    list is not one of Vestal's.
    """
    keys = plistlib.loads(text.encode())
    return InstalledProgram(Path(keys["ProgramArguments"][0]), Path(keys["WorkingDirectory"]))


def _filled(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(item, values) for item in node]
    whole = PLACEHOLDER.fullmatch(node) if isinstance(node, str) else None
    return values[whole[1]] if whole else node
