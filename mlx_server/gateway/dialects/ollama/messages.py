"""The messages of Ollama's /api/chat, and their conversion to the form that chat templates expect. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_server.gateway.dialects.bodies import Body, ListOf
from mlx_server.gateway.dialects.chat.history import Role, chat_history
from mlx_server.gateway.dialects.tools import past_arguments
from mlx_server.gateway.images.reader import Content, ImageReader, joined


class CalledFunction(Body):
    name: str
    arguments: dict[str, Any] | str | None = None


class ToolCall(Body):
    """A tool call in an earlier answer. Ollama's own clients send no id; others do."""

    id: str | None = None
    type: str | None = None
    function: CalledFunction

    def as_dict(self) -> dict[str, Any]:
        """Return the call in the form that chat templates expect."""
        arguments = past_arguments(self.function.arguments)
        call = {"function": {"name": self.function.name, "arguments": arguments}}
        return call | {key: value for key, value in (("id", self.id), ("type", self.type)) if value}


class Message(Body):
    """A message of a chat. For a tool result, `tool_name` or `name` is the name of the tool."""

    role: Role
    content: str | None = None
    thinking: str | None = None
    images: ListOf[Any] | None = None
    tool_calls: ListOf[ToolCall] | None = None
    tool_name: str | None = None
    name: str | None = None
    tool_call_id: str | None = None

    def as_dict(self, field: str, images: ImageReader) -> dict[str, Any]:
        """Return the message in the form that chat templates expect. `field` is the message's path in the
        body. Raises BadRequest if an image cannot be used.
        """
        optional = {
            "tool_calls": [call.as_dict() for call in self.tool_calls or ()] or None,
            "name": (self.tool_name or self.name) if self.role == "tool" else None,
            "tool_call_id": self.tool_call_id,
            "reasoning_content": self.thinking,
        }
        given = {key: value for key, value in optional.items() if value is not None}
        if images.reads_in(self.role):
            content: Content = with_images(self.content or "", self.images or (), f"{field}.images", images)
        else:
            content = "\n".join(filter(None, (self.content, _placeholder(len(self.images or ())))))
        return {"role": self.role, "content": content, **given}


def with_images(text: str, sources: Sequence[Any], field: str, images: ImageReader) -> Content:
    """Return the content of a message: first its images, and then its text, as Ollama arranges them.

    `sources` are the images as base64 or data URLs, which are added to `images`; `field` is their path in the
    body. Raises BadRequest if an image cannot be used.
    """
    parts = [images.take(f"{field}.{number}", source) for number, source in enumerate(sources)]
    return joined([*parts, text])


def chat_messages(messages: Sequence[Message], images: ImageReader) -> tuple[dict[str, Any], ...]:
    """Return the messages in the form that chat templates expect. Their images are added to `images`.

    Raises BadRequest if an image cannot be used. If the model reads text only, images in the last user
    message or after it are refused too; earlier images are replaced by a remark, so that the conversation can
    continue.
    """
    last = max((n for n, message in enumerate(messages) if message.role == "user"), default=0)
    if any(message.images and not images.reads_in(message.role) for message in messages[last:]):
        raise images.refusal("images", "images")
    return chat_history(message.as_dict(f"messages.{n}", images) for n, message in enumerate(messages))


def _placeholder(images: int) -> str:
    if not images:
        return ""
    return (
        "[An image was here; this model reads text only.]"
        if images == 1
        else f"[{images} images were here; this model reads text only.]"
    )
