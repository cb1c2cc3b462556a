"""The tools that Anthropic defines and the client runs, described as functions for other models. Pure.

A client offers such a tool by its type alone (`{"type": "bash_20250124", "name": "bash"}`), because
Anthropic's own models know its arguments. The versions of a type differ only in details that a client checks
itself.
"""

from __future__ import annotations

from typing import Any

from mlx_server.gateway.errors import BadRequest

Tool = dict[str, Any]


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _arguments(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_FILE_ARGUMENTS: dict[str, Any] = {
    "path": _text("The absolute path of the file or folder."),
    "file_text": _text("For create: the whole content of the new file."),
    "old_str": _text("For str_replace: the text to replace. It must occur exactly once."),
    "new_str": _text("For str_replace: the new text."),
    "insert_line": {"type": "integer", "description": "For insert: insert after this line; 0 is the start."},
    "insert_text": _text("For insert: the text to insert."),
    "view_range": {
        "type": "array",
        "items": {"type": "integer"},
        "description": "For view: the first and the last line to show; -1 is the end.",
    },
}


def _commands(*names: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(names), "description": "What to do."}


_BASH = (
    "Run a command in a bash shell on the user's machine, and return its output. The shell keeps its state "
    "between calls.",
    _arguments(
        [],
        command=_text("The command. Required unless restart is true."),
        restart={"type": "boolean", "description": "Start the shell again."},
    ),
)
_TEXT_EDITOR = (
    "View, create and edit text files on the user's machine.",
    _arguments(
        ["command", "path"], command=_commands("view", "create", "str_replace", "insert"), **_FILE_ARGUMENTS
    ),
)
_MEMORY = (
    "Read and keep notes in files under /memories, which last beyond this conversation. View /memories "
    "before anything else.",
    _arguments(
        ["command"],
        command=_commands("view", "create", "str_replace", "insert", "delete", "rename"),
        **_FILE_ARGUMENTS,
        old_path=_text("For rename: the present path."),
        new_path=_text("For rename: the new path."),
    ),
)
_BY_TYPE = {"bash": _BASH, "text_editor": _TEXT_EDITOR, "memory": _MEMORY}
"""The description and the JSON schema of the arguments of each tool, by its type without the version."""


def client_tool(tool_type: str, name: str | None, position: int) -> Tool | None:
    """Return a tool that Anthropic defines and the client runs, such as `bash_20250124`, as a function for
    the chat template; None if `tool_type` is not the type of such a tool. The function gets the client's
    `name` for the tool. `position` is the tool's index in the body's tools, for the error message. Raises
    BadRequest if the tool has no name.
    """
    known = _BY_TYPE.get(tool_type.rpartition("_")[0])
    if known is None:
        return None
    if not name:
        raise BadRequest("invalid_request", f"tools.{position}.name: is missing")
    description, parameters = known
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}
