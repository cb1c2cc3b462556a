"""The messages of Ollama's /api/chat, and the form in which chat templates take them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import field_validator

from mlx_server.gateway.dialects.bodies import Body, ListOf
from mlx_server.gateway.dialects.tools import call_arguments
from mlx_server.gateway.errors import BadRequest

THINKING = "thinking"
_ROLES = {"developer": "system", "function": "tool"}
_KNOWN = ("system", "user", "assistant", "tool", THINKING)


class CalledFunction(Body):
    name: str
    arguments: dict[str, Any] | str | None = None


class ToolCall(Body):
    """A call in an earlier answer. Ollama's own clients send no id; others do."""

    id: str | None = None
    type: str | None = None
    function: CalledFunction

    def as_dict(self, field: str) -> dict[str, Any]:
        """Return the call, which stands in the body's `field`, in the form that chat templates take.

        Raises BadRequest.
        """
        arguments = call_arguments(f"{field}.function.arguments", self.function.arguments)
        call = {"function": {"name": self.function.name, "arguments": arguments}}
        return call | {key: value for key, value in (("id", self.id), ("type", self.type)) if value}


class Message(Body):
    """One message. Ollama takes any role in any case: an unknown one is read as the user's here."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: ListOf[Any] | None = None
    tool_calls: ListOf[ToolCall] | None = None
    tool_name: str | None = None
    name: str | None = None
    tool_call_id: str | None = None

    @field_validator("role")
    @classmethod
    def _known_role(cls, role: str) -> str:
        role = role.lower()
        role = _ROLES.get(role, role)
        return role if role in _KNOWN else "user"

    def as_dict(self, field: str) -> dict[str, Any]:
        """Return the message, which stands in the body's `field`, in the form that chat templates take.

        Raises BadRequest.
        """
        calls = self.tool_calls or ()
        optional = {
            "tool_calls": [call.as_dict(f"{field}.tool_calls.{n}") for n, call in enumerate(calls)] or None,
            "name": (self.tool_name or self.name) if self.role == "tool" else None,
            "tool_call_id": self.tool_call_id,
            "reasoning_content": self.thinking,
        }
        given = {key: value for key, value in optional.items() if value is not None}
        content = "\n".join(filter(None, (self.content, _placeholder(len(self.images or ())))))
        return {"role": self.role, "content": content, **given}


def chat_messages(messages: Sequence[Message], model: str) -> tuple[dict[str, Any], ...]:
    """Return the messages in the form that chat templates take.

    A message of the role `thinking` (Continue sends them) is the thinking of the assistant's message after
    it. Raises BadRequest, also for images since the user's last message: `model` reads text only. In the
    place of earlier images a remark stands, so that the conversation can go on.
    """
    last = max((n for n, message in enumerate(messages) if message.role == "user"), default=0)
    if any(message.images for message in messages[last:]):
        raise no_images(model)
    made: list[dict[str, Any]] = []
    thought: str | None = None
    for number, message in enumerate(messages):
        if message.role == THINKING:
            thought = message.content
            continue
        as_dict = message.as_dict(f"messages.{number}")
        if thought and message.role == "assistant":
            as_dict.setdefault("reasoning_content", thought)
        thought = None
        made.append(as_dict)
    if not made:
        raise BadRequest("empty_prompt", "messages: holds thinking only; send a message of the user")
    return tuple(made)


def no_images(model: str) -> BadRequest:
    """Return the error for images, which no model here can see."""
    return BadRequest("not_supported", f"model {model!r} reads text only; leave out `images`", field="images")


def _placeholder(images: int) -> str:
    if not images:
        return ""
    return (
        "[An image was here; this model reads text only.]"
        if images == 1
        else f"[{images} images were here; this model reads text only.]"
    )
