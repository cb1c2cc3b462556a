"""Convert items to the messages that chat templates expect. Pure.

An assistant's turn is several items in this API (its reasoning, its text, its calls), and one message in a
template. A part that a text model cannot read is replaced by a sentence, so that the model can tell the user.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Any

from mlx_server.gateway.dialects.chat.content_parts import file_text, named_file, placeholder
from mlx_server.gateway.dialects.chat.history import chat_history, normalized_role
from mlx_server.gateway.dialects.responses.input_items import Item
from mlx_server.gateway.dialects.tools import check_argument_texts, past_arguments
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.reader import Content, ImageReader, joined

TEXT_PARTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
IMAGE_PART = "input_image"
COMPACTED = "The conversation before this point, in short:\n\n"
_OPAQUE = "vestal1:"

Message = dict[str, Any]


def chat_messages(
    instructions: str | None, items: Iterable[Item], images: ImageReader | None = None
) -> list[Message]:
    """Return the messages of the conversation that consists of `items`. `instructions`, if there are any,
    become a system message at the beginning.

    `images` collects the images; if it is None, the model reads text only, and each image is replaced by a
    sentence. Raises BadRequest if the arguments of a call are not a JSON object, if an image cannot be used,
    or if a compaction item was made by another server. Raises TooLarge if the arguments of all calls together
    contain too many JSON values.
    """
    items = list(items)
    check_argument_texts(item["arguments"] for item in items if item["type"] == "function_call")
    messages = _Messages(images or ImageReader(""))
    if instructions:
        messages.add({"role": "system", "content": instructions})
    for item in items:
        messages.add_item(item)
    return list(chat_history(messages.finished()))


def unreadable_parts(items: Iterable[Item], images: ImageReader | None = None) -> list[str]:
    """Return the types of the content parts that the model cannot read and that `chat_messages` replaces by a
    sentence: sorted, each type once. `images` says whether the model reads images; if it is None, the model
    reads text only.
    """
    reader = images or ImageReader("")
    parts = ((part, reader.reads_in(_role_of(item))) for item in items for part in _parts_of(item))
    return sorted(
        {
            part["type"]
            for part, sees in parts
            if not _is_readable(part) and not (sees and part["type"] == IMAGE_PART)
        }
    )


def opaque(text: str) -> str:
    """Return `text` in the form of `encrypted_content`, which clients send back unchanged. It is encoded but
    not encrypted, because it is the client's own text and goes to nobody else.
    """
    return base64.b64encode(f"{_OPAQUE}{text}".encode("utf-8", "replace")).decode("ascii")


def text_of_opaque(content: str) -> str | None:
    """Return the text in `content`, or None if this server did not encode it."""
    try:
        text = base64.b64decode(content, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    return text.removeprefix(_OPAQUE) if text.startswith(_OPAQUE) else None


class _Messages:
    """Builds the messages of a conversation from its items, one item at a time. `_turn` is the assistant's
    message to which the next items may still belong.
    """

    def __init__(self, images: ImageReader) -> None:
        self._images = images
        self._messages: list[Message] = []
        self._turn: Message = {}

    def add(self, message: Message) -> None:
        self._close_turn()
        self._messages.append(message)

    def finished(self) -> list[Message]:
        self._close_turn()
        return self._messages

    def add_item(self, item: Item) -> None:
        role = normalized_role(item["role"]) if item["type"] == "message" else ""
        match item["type"]:
            case "message" if role == "assistant":
                if "content" in self._turn or "tool_calls" in self._turn:
                    self._close_turn()
                self._turn["content"] = _text(item["content"])
            case "message":
                self.add({"role": role, "content": self._content(item, item["content"])})
            case "reasoning":
                if "content" in self._turn or "tool_calls" in self._turn:
                    self._close_turn()
                earlier = self._turn.get("reasoning_content", "")
                self._turn["reasoning_content"] = earlier + _thoughts(item)
            case "function_call":
                self._add_call(item, past_arguments(item["arguments"]))
            case "custom_tool_call":
                self._add_call(item, {"input": item["input"]})
            case "function_call_output" | "custom_tool_call_output":
                output = self._content(item, item["output"])
                self.add({"role": "tool", "tool_call_id": item["call_id"], "content": output})
            case "compaction":
                self.add({"role": "user", "content": COMPACTED + _summary(item)})

    def _content(self, item: Item, content: str | Sequence[Item]) -> Content:
        """Return `content` as the content of a chat message: a string, or a list of parts if it holds images
        that the model sees. `content` is what a message says, or what a tool call has returned; it belongs to
        `item`, whose type and role decide whether the model sees its images. Raises BadRequest, which names
        the item's id, if an image cannot be used.
        """
        if isinstance(content, str) or not self._images.reads_in(_role_of(item)):
            return _text(content)
        parts: list[str | dict[str, Any]] = []
        for number, part in enumerate(content):
            if part["type"] == IMAGE_PART:
                field = f"input.{item['id']}.{number}.image_url"
                parts.append(self._images.take(field, part.get("image_url")))
            else:
                parts.append(_part_text(part))
        return joined(parts)

    def _add_call(self, item: Item, arguments: dict[str, Any]) -> None:
        function = {"name": item["name"], "arguments": arguments}
        call = {"id": item["call_id"], "type": "function", "function": function}
        self._turn.setdefault("tool_calls", []).append(call)

    def _close_turn(self) -> None:
        turn, self._turn = self._turn, {}
        if "content" in turn or "tool_calls" in turn:  # thoughts alone do not make a message
            message = {"role": "assistant", "content": turn.get("content", "")}
            message |= {key: turn[key] for key in ("reasoning_content", "tool_calls") if turn.get(key)}
            self._messages.append(message)


def _summary(item: Item) -> str:
    """Return the summary in a compaction item. Raises BadRequest if another server made it."""
    summary = text_of_opaque(item["encrypted_content"])
    if summary is None:
        message = (
            "input: the compaction item was not made by this server, so that it cannot be read; send the "
            "conversation itself"
        )
        raise BadRequest("invalid_request", message, param="input")
    return summary


def _thoughts(item: Item) -> str:
    """Return the thoughts of a reasoning item: its content; else its `encrypted_content` if this server
    encoded it; else its summary, because this server writes all thoughts into the summary.
    """
    text = "".join(part.get("text") or "" for part in item.get("content") or ())
    text = text or text_of_opaque(item.get("encrypted_content") or "") or ""
    return text or "".join(part.get("text") or "" for part in item.get("summary") or ())


def _role_of(item: Item) -> str:
    """Return the role of the message that an item becomes."""
    return normalized_role(item["role"]) if item["type"] == "message" else "tool"


def _parts_of(item: Item) -> Sequence[Item]:
    content = item.get("output") if item["type"].endswith("_output") else item.get("content")
    return content if item["type"] != "reasoning" and isinstance(content, list) else ()


def _is_readable(part: Item) -> bool:
    return part["type"] in (*TEXT_PARTS, "refusal") or _file_text(part) is not None


def _text(content: str | Sequence[Item]) -> str:
    if isinstance(content, str):
        return content
    return "".join(map(_part_text, content))


def _part_text(part: Item) -> str:
    if part["type"] in TEXT_PARTS:
        return part.get("text") or ""
    if part["type"] == "refusal":
        return part.get("refusal") or ""
    text = _file_text(part)
    return placeholder(part["type"]) if text is None else named_file(part.get("filename"), text)


def _file_text(part: Item) -> str | None:
    return file_text(part.get("file_data")) if part["type"] == "input_file" else None
