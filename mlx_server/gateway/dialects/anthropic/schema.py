"""Anthropic's request bodies, and their conversion to requests for a model. Pure.

Fields that have no meaning for a local model are accepted and ignored: `cache_control` (every prompt is
cached), `context_management`, `betas`, `container`, `service_tier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from mlx_server.gateway.dialects.anthropic.client_tools import client_tool
from mlx_server.gateway.dialects.anthropic.messages import (
    Block,
    Message,
    replaced_blocks,
    template_messages,
)
from mlx_server.gateway.dialects.bodies import Body, ListOf, ModelName, StopTexts, not_supported
from mlx_server.gateway.dialects.chat.tool_choice import CallRules, ChosenTools, chosen_tools
from mlx_server.gateway.dialects.sampling_fields import (
    AnswerLimitOrZero,
    Share,
    Temperature,
    TopK,
    make_sampling,
)
from mlx_server.gateway.dialects.tools import ANY_ARGUMENTS
from mlx_server.gateway.errors import BadRequest, quoted
from mlx_server.gateway.images.reader import ImageReader
from mlx_server.gateway.requests.model_requests import GenerationRequest


class Tool(Body):
    """A function that the client defines (type `custom`, or no type), or a tool that Anthropic defines."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None

    def as_dict(self, position: int) -> dict[str, Any] | None:
        """Return the tool in the form that chat templates expect; None for a service that only Anthropic
        runs. Raises BadRequest if the tool has no name. `position` is the tool's index in the body's tools.
        """
        if self.type not in (None, "custom"):
            return client_tool(self.type, self.name, position)
        if not self.name:
            raise BadRequest("invalid_request", f"tools.{position}.name: is missing")
        function = {"name": self.name, "parameters": self.input_schema or ANY_ARGUMENTS}
        if self.description:
            function["description"] = self.description
        return {"type": "function", "function": function}


class ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"] = "auto"
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    """The client's choice whether the model thinks before it answers. If `type` is neither `enabled` nor
    `disabled`, but for example `adaptive`, the model's chat template decides. A model that cannot think
    answers without thinking.
    """

    type: str


class Metadata(Body):
    user_id: str | None = None


class OutputFormat(Body):
    type: str
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")

    @property
    def as_schema(self) -> dict[str, Any]:
        """Return the JSON schema that the answer must match. Raises BadRequest if the format is not
        `json_schema` or has no schema.
        """
        if self.type != "json_schema":
            not_supported(
                "output_config.format.type", f"{quoted(self.type)} is not served; give `json_schema`"
            )
        if self.json_schema is None:
            raise BadRequest("invalid_request", "output_config.format.schema: is missing")
        return self.json_schema


class OutputConfig(Body):
    effort: str | None = None
    format: OutputFormat | None = None


class CountBody(Body):
    """The body of /v1/messages/count_tokens: the fields of a message request that make up the prompt.

    `output_format` is an older name of `output_config.format`, from Anthropic's beta.
    """

    model: ModelName
    messages: ListOf[Message] = Field(min_length=1)
    system: str | ListOf[Block] | None = None
    tools: ListOf[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    mcp_servers: ListOf[dict[str, Any]] | None = None

    def to_count(self, model: str, images: ImageReader | None = None) -> GenerationRequest:
        """Return a request that only counts the prompt's tokens. `model` is the model's canonical name.

        `images` collects the images; if it is None, the model reads text only. Raises BadRequest if a
        message, a tool or the output format cannot be used.
        """
        images = images or ImageReader(self.model)
        chosen = self._chosen_tools
        output_format = (self.output_config.format if self.output_config else None) or self.output_format
        json_schema = output_format.as_schema if output_format else None
        return GenerationRequest(
            model=model,
            kind="chat",
            count_only=True,
            messages=template_messages(self.system, self.messages, images),
            images=images.files,
            tools=chosen.functions,
            tool_choice="required" if chosen.call_schema else "auto",
            allowed_calls=chosen.rules.allowed,
            json_schema=chosen.call_schema or json_schema,
            think=False if self.thinking and self.thinking.type == "disabled" else None,
            template=self._template,
        )

    @property
    def _template(self) -> dict[str, Any] | None:
        """Return the variables for the chat template that the body sets (`reasoning_effort`,
        `enable_thinking`); None if it sets neither.
        """
        effort = self.output_config.effort if self.output_config else None
        variables: dict[str, Any] = {"reasoning_effort": effort} if effort else {}
        if self.thinking and self.thinking.type == "enabled":
            variables["enable_thinking"] = True  # a model that cannot think has no such variable
        return variables or None

    @property
    def call_rules(self) -> CallRules:
        """Return the rules for the tool calls of the answer. Raises BadRequest if a tool or `tool_choice` is
        wrong.
        """
        return self._chosen_tools.rules

    def skipped(self, images: ImageReader) -> dict[str, Sequence[str]]:
        """Return, for the log, what the client requested but the model does not get, because this server does
        not support it: the types of tools (key `tools`) and of content blocks (key `parts`). Raises
        BadRequest if a tool or `tool_choice` is wrong.
        """
        mcp = ["mcp_servers"] if self.mcp_servers else []
        replaced = replaced_blocks(self.messages, images)
        return {"tools": [*self._chosen_tools.skipped, *mcp], "parts": replaced}

    @cached_property
    def _chosen_tools(self) -> ChosenTools:
        """Return the tools that are offered to the model, and how it may call them. Raises BadRequest if a
        tool or `tool_choice` is wrong.
        """
        choice = self.tool_choice or ToolChoice()
        if choice.type == "tool" and not choice.name:
            raise BadRequest("invalid_request", "tool_choice.name: is missing")
        as_dicts = [(tool, tool.as_dict(number)) for number, tool in enumerate(self.tools or ())]
        skipped = [str(tool.type) for tool, function in as_dicts if function is None]
        for tool, function in as_dicts:
            if function is None and choice.type == "tool" and tool.name == choice.name:
                not_supported(
                    "tool_choice",
                    f"the tool type {quoted(str(tool.type))} is a service of Anthropic's that no answer "
                    "can use here; offer a function of your own",
                )
        return chosen_tools(
            [function for _, function in as_dicts if function is not None],
            {"none": "none", "auto": "auto"}.get(choice.type, "required"),  # type: ignore[arg-type]
            CallRules(most_calls=1 if choice.disable_parallel_tool_use else None),
            skipped,
            name=choice.name if choice.type == "tool" else None,
        )


class MessagesBody(CountBody):
    max_tokens: AnswerLimitOrZero
    stream: bool | None = None
    stop_sequences: StopTexts | None = None
    temperature: Temperature = None
    top_p: Share = None
    top_k: TopK = None
    metadata: Metadata | None = None

    @property
    def user(self) -> str | None:
        return self.metadata.user_id if self.metadata else None

    def to_request(self, model: str, drawn_seed: int, images: ImageReader | None = None) -> GenerationRequest:
        """Return the generation request. `model` is the model's canonical name. `drawn_seed` is the seed of
        the sampling, because this API has no field for a seed. `images` collects the images; if it is None,
        the model reads text only. Raises BadRequest if a message, a tool or the output format cannot be used.
        """
        return replace(
            self.to_count(model, images),
            count_only=False,
            sampling=make_sampling(
                drawn_seed, temperature=self.temperature, top_p=self.top_p, top_k=self.top_k
            ),
            max_tokens=self.max_tokens,
            stop=tuple(text for text in self.stop_sequences or () if text),
        )
