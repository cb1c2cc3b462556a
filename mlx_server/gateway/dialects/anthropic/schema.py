"""Anthropic's request body for messages, and what it means as a request of ours. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from mlx_server.gateway.dialects.bodies import Body, Many, Whole, refuse
from mlx_server.gateway.dialects.tools import ANY_ARGUMENTS, call_schema
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.protocol import Sampling

LIMIT = 2**31


class Block(Body):
    """One block of a message's content. A kind that is unknown here is passed over."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | Many[Block] | None = None


class Message(Body):
    role: Literal["user", "assistant"]
    content: str | Many[Block]

    def as_dicts(self) -> list[dict[str, Any]]:
        """As messages for a template: results of tools are messages of their own, before what is said."""
        if isinstance(self.content, str):
            return [{"role": self.role, "content": self.content}]
        results = [
            {"role": "tool", "content": _text(block.content), "tool_call_id": block.tool_use_id or ""}
            for block in self.content
            if block.type == "tool_result"
        ]
        said: dict[str, Any] = {"role": self.role, "content": _text(self.content)}
        if thoughts := "".join(block.thinking or "" for block in self.content if block.type == "thinking"):
            said["reasoning_content"] = thoughts
        if calls := [_call(block) for block in self.content if block.type == "tool_use"]:
            said["tool_calls"] = calls
        return [*results, said] if said["content"] or calls or not results else results


class Tool(Body):
    name: str = Field(min_length=1)
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """In the form that templates are written for."""
        if self.type not in (None, "custom"):
            refuse(
                "tools", f"the tool type {self.type!r} is Anthropic's own service; offer functions of yours"
            )
        function = {"name": self.name, "parameters": self.input_schema or ANY_ARGUMENTS}
        if self.description:
            function["description"] = self.description
        return {"type": "function", "function": function}


class ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class Thinking(Body):
    type: str


class Metadata(Body):
    user_id: str | None = None


class CountBody(Body):
    """What goes into a prompt; /v1/messages/count_tokens takes no more."""

    model: str = Field(min_length=1)
    messages: Many[Message] = Field(min_length=1)
    system: str | Many[Block] | None = None
    tools: Many[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None

    def to_count(self, model: str) -> GenerationRequest:
        """As a request for the canonical `model` that counts the prompt. Raises BadRequest."""
        system = _text(self.system)
        choice = self.tool_choice or ToolChoice(type="auto")
        tools = None if choice.type == "none" else tuple(tool.as_dict() for tool in self.tools or ()) or None
        forced = choice.type in ("any", "tool")
        if choice.type == "tool" and not choice.name:
            raise BadRequest("invalid_request", "tool_choice.name: is missing")
        name = choice.name if choice.type == "tool" else None
        return GenerationRequest(
            model=model,
            kind="chat",
            count_only=True,
            messages=(
                *([{"role": "system", "content": system}] if system else []),
                *(each for message in self.messages for each in message.as_dicts()),
            ),
            tools=tools,
            tool_choice="required" if forced else "auto",
            json_schema=call_schema(tools or (), name) if forced else None,
            # Clients ask for thoughts of whatever model they are given; one that has none just answers.
            think=False if self.thinking and self.thinking.type == "disabled" else None,
        )


class MessagesBody(CountBody):
    max_tokens: Whole = Field(ge=1, lt=LIMIT)
    stream: bool | None = None
    stop_sequences: Many[str] | None = None
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: Whole | None = Field(default=None, ge=0, lt=LIMIT)
    metadata: Metadata | None = None

    @property
    def user(self) -> str | None:
        return self.metadata.user_id if self.metadata else None

    def to_request(self, model: str, drawn_seed: int) -> GenerationRequest:
        """As a request for the canonical `model`. Raises BadRequest for what is not supported."""
        return replace(
            self.to_count(model),
            count_only=False,
            sampling=Sampling(
                seed=drawn_seed,
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
                top_k=self.top_k or 0,
            ),
            max_tokens=self.max_tokens,
            stop=tuple(text for text in self.stop_sequences or () if text),
        )


def _text(content: str | list[Block] | None) -> str:
    if not isinstance(content, list):
        return content or ""
    for block in content:
        if block.type in ("image", "document"):
            refuse(
                "messages.content", f"this server reads text only; leave out the block of type {block.type!r}"
            )
    return "".join(block.text or "" for block in content if block.type == "text")


def _call(block: Block) -> dict[str, Any]:
    function = {"name": block.name or "", "arguments": block.input or {}}
    return {"id": block.id or "", "type": "function", "function": function}
