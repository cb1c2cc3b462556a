"""Turn pydantic's errors into sentences that name the key, the line of the file or the environment variable
that set it, and the remedy.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from vestal.config.settings import Conflict, ModelSource, Settings
from vestal.config.yaml_file import KeyPath, YamlFile


def sentences(error: ValidationError, file: YamlFile | None, variables: Mapping[KeyPath, str]) -> list[str]:
    """Return one sentence for each mistake that `error` lists. The sentence begins with the origin of the
    wrong setting: the name of an environment variable, or else the path and the line of `file`.

    `variables` maps the key path of each setting that came from the environment to its variable's name.
    `file` is None if there is no configuration file.
    """
    return [_sentence(detail, file, variables) for detail in error.errors()]


def sentences_of_replaced_values(
    error: ValidationError, file: YamlFile, variables: Mapping[KeyPath, str]
) -> list[str]:
    """Return one sentence for each mistake of `error` in a value that one of `variables` replaces. `error` is
    from validating `file` without the environment. Each sentence begins with the path and the line of `file`.

    A value that is missing or empty in the file is not reported, because a variable gives it. Neither are
    settings that do not fit together: pydantic reports these for the section around them, which no variable
    replaces, and whether they fit depends on the values of the variables.
    """
    return [
        _sentence(detail, file, {})
        for detail in error.errors()
        if _is_replaced(key := _key_of(detail), variables)
        and not (detail["type"] == "missing" or (detail["input"] is None and key in variables))
    ]


def _is_replaced(key: KeyPath, variables: Mapping[KeyPath, str]) -> bool:
    """Return True if one of `variables` sets the value of `key`, or a section or list around it."""
    return any(key[:length] in variables for length in range(1, len(key) + 1))


def _key_of(detail: Any) -> KeyPath:
    return tuple(str(part) for part in detail["loc"])


def _sentence(detail: Any, file: YamlFile | None, variables: Mapping[KeyPath, str]) -> str:
    key = _key_of(detail)
    error = detail.get("ctx", {}).get("error")
    if isinstance(error, Conflict):
        keys = [(*key, *each) for each in error.keys]
        section = f"{'.'.join(key)}: " if key else ""
        return f"{_place(_first_set(keys, file, variables), file, variables)}{section}{error}."
    place = _place(key, file, variables)
    if detail["type"] == "extra_forbidden":
        return f"{place}unknown key {'.'.join(key)}; {_hint(key)}"
    if detail["type"] == "missing":
        return f"{place}{'.'.join(key)} is missing; give it."
    if key[-1:] == ("[key]",):
        return f"{place}{'.'.join(key[:-2])}.{key[-2]}: a name has letters, digits, `_`, `.` and `-` only."
    reason = str(detail["msg"]).removeprefix("Value error, ")
    if not key:
        return f"{place}{reason}."
    value = "(not shown here)" if is_secret(key) else f"is {_shown(detail['input'])}"
    return f"{place}{'.'.join(key)} {value}: {_plain(reason)}."


def _first_set(keys: list[KeyPath], file: YamlFile | None, variables: Mapping[KeyPath, str]) -> KeyPath:
    """Return the first of `keys` that the environment sets, or else the first that the file sets, or else the
    first.
    """
    given = [key for key in keys if key in variables]
    given += [key for key in keys if file and key in file.lines]
    return [*given, *keys][0]


def _place(key: KeyPath, file: YamlFile | None, variables: Mapping[KeyPath, str]) -> str:
    for length in range(len(key), 0, -1):
        if key[:length] in variables:
            return f"{variables[key[:length]]} (environment): "
    return f"{file.place(key)}: " if file else ""


def _hint(key: KeyPath) -> str:
    known = _known_keys(key)
    close = difflib.get_close_matches(key[-1], known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known keys: {', '.join(sorted(known))}."


def _known_keys(key: KeyPath) -> list[str]:
    """Return the keys that are allowed in the section of this key."""
    if key[0] == "models":
        return list(ModelSource.model_fields)
    model: Any = Settings
    for part in key[:-1]:
        model = model.model_fields[part].annotation
    return list(model.model_fields) if issubclass(model, BaseModel) else []


def is_secret(key: KeyPath) -> bool:
    """Return whether the setting may contain a password or key, so that no message may show its value. Such a
    setting is declared with `repr=False`, which also keeps it out of the `repr` of its section.
    """
    model: Any = Settings
    for part in key:  # the field may be an item in a list of secrets
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return False
        if not field.repr:
            return True
        model = field.annotation
    return False


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):  # as YAML names it, which also takes `yes`, `on`, `no` and `off` for these
        return "true" if value else "false"
    return "empty" if value is None else f'"{str(value)[:60]}"'


_PLAIN_WORDS = {
    "Input should be a valid integer, unable to parse string as an integer": "give a whole number",
    "Input should be a valid integer, got a number with a fractional part": "give a whole number",
    "Input should be a valid integer": "give a whole number",
    "Input should be a valid number, unable to parse string as a number": "give a number",
    "Input should be a valid string": "give text",
    "Input should be a valid list": "give a list, such as [one, two]",
    "Input should be a valid dictionary": "give a section with keys under it",
    "Input should be a valid boolean": "give true or false",
    "Input should be a valid boolean, unable to interpret input": "give true or false",
    "Input is not a valid path for <class 'pathlib.Path'>": "give a path",
}


def _plain(message: str) -> str:
    """Return pydantic's message, reworded for people who do not know Python."""
    if message.startswith("Input should be a valid dictionary or instance of"):
        return "give a section with keys under it"
    return _PLAIN_WORDS.get(message, message.replace("Input should be", "it should be", 1))
