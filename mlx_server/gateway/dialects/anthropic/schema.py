"""Anthropic's request bodies, and the model requests that they mean. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from mlx_server.gateway.dialects.bodies import Body, ListOf, ModelName, StopTexts, WholeNumber, not_supported
from mlx_server.gateway.dialects.sampling_fields import (
    INT32_LIMIT,
    Share,
    Temperature,
    TopK,
    make_sampling,
)
from mlx_server.gateway.dialects.tools import ANY_ARGUMENTS, call_schema
from mlx_server.gateway.errors import BadRequest, quoted
from mlx_server.gateway.requests.model_requests import GenerationRequest


class Block(Body):
    """One block of a message's content. A block of an unknown type is ignored."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | ListOf[Block] | None = None


class Message(Body):
    role: Literal["user", "assistant"]
    content: str | ListOf[Block]

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return messages in the form that chat templates are written for.

        The results of tools become messages of their own, before the text of the message.
        """
        if isinstance(self.content, str):
            return [{"role": self.role, "content": self.content}]
        results = [
            {"role": "tool", "content": _text(block.content), "tool_call_id": block.tool_use_id or ""}
            for block in self.content
            if block.type == "tool_result"
        ]
        message: dict[str, Any] = {"role": self.role, "content": _text(self.content)}
        if thoughts := "".join(block.thinking or "" for block in self.content if block.type == "thinking"):
            message["reasoning_content"] = thoughts
        if calls := [_call(block) for block in self.content if block.type == "tool_use"]:
            message["tool_calls"] = calls
        return [*results, message] if message["content"] or calls or not results else results


class Tool(Body):
    name: str = Field(min_length=1)
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the tool in the form that chat templates are written for. Raises BadRequest."""
        if self.type not in (None, "custom"):
            message = (
                f"the tool type {quoted(self.type)} is a service of Anthropic; offer functions of your own"
            )
            not_supported("tools", message)
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
    """The fields that make the prompt: all that /v1/messages/count_tokens takes."""

    model: ModelName
    messages: ListOf[Message] = Field(min_length=1)
    system: str | ListOf[Block] | None = None
    tools: ListOf[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None

    def to_count(self, model: str) -> GenerationRequest:
        """Return a request that counts the prompt's tokens, for the model of this canonical name.

        Raises BadRequest.
        """
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
            # Clients ask any model for thoughts; one that cannot think just answers.
            think=False if self.thinking and self.thinking.type == "disabled" else None,
        )


class MessagesBody(CountBody):
    max_tokens: WholeNumber = Field(ge=1, lt=INT32_LIMIT)
    stream: bool | None = None
    stop_sequences: StopTexts | None = None
    temperature: Temperature = None
    top_p: Share = None
    top_k: TopK = None
    metadata: Metadata | None = None

    @property
    def user(self) -> str | None:
        return self.metadata.user_id if self.metadata else None

    def to_request(self, model: str, drawn_seed: int) -> GenerationRequest:
        """Return the request for the model of this canonical name. Raises BadRequest."""
        return replace(
            self.to_count(model),
            count_only=False,
            sampling=make_sampling(
                drawn_seed, temperature=self.temperature, top_p=self.top_p, top_k=self.top_k
            ),
            max_tokens=self.max_tokens,
            stop=tuple(text for text in self.stop_sequences or () if text),
        )


def _text(content: str | list[Block] | None) -> str:
    if not isinstance(content, list):
        return content or ""
    for block in content:
        if block.type in ("image", "document"):
            message = f"this server reads text only; leave out the block of type {quoted(block.type)}"
            not_supported("messages.content", message)
    return "".join(block.text or "" for block in content if block.type == "text")


def _call(block: Block) -> dict[str, Any]:
    function = {"name": block.name or "", "arguments": block.input or {}}
    return {"id": block.id or "", "type": "function", "function": function}
