"""OpenAI's request bodies, and what they mean as requests of ours. Pure. Defaults are OpenAI's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import msgspec
from pydantic import Field

from mlx_server.gateway.dialects.bodies import Body, Many, Whole, refuse
from mlx_server.gateway.dialects.tools import call_schema, checked
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import (
    ANY_OBJECT,
    EmbeddingRequest,
    GenerationRequest,
    ModelRequest,
)
from mlx_server.protocol import Sampling

SEED_MASK = 2**63 - 1
LIMIT = 2**31
MOST_IDS = 2**20


class StreamOptions(Body):
    include_usage: bool | None = None


class TextBody(Body):
    """What chat and completions have in common."""

    model: str = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: Whole | None = Field(default=None, ge=1, lt=LIMIT)
    stop: str | Many[str] | None = None
    seed: Whole | None = None
    n: Whole | None = Field(default=None, ge=1, le=128)
    presence_penalty: float | None = Field(default=None, ge=-100, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-100, le=100)
    user: str | None = None
    # beyond OpenAI's own, as other local servers take them
    top_k: Whole | None = Field(default=None, ge=0, lt=LIMIT)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, drawn_seed: int) -> Sampling:
        return Sampling(
            seed=drawn_seed if self.seed is None else self.seed & SEED_MASK,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            min_p=self.min_p or 0.0,
            repeat_penalty=self.repetition_penalty or 1.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
        )

    @property
    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    def echoed(self, work: ModelRequest) -> str:
        """What of its prompt an answer begins with."""
        return ""

    def several(self, prompts: Sequence[GenerationRequest]) -> list[GenerationRequest]:
        """`n` answers to each of `prompts`, prompt by prompt; each has a seed of its own."""
        answers = [work for work in prompts for _ in range(self.n or 1)]
        samplings = (
            msgspec.structs.replace(work.sampling, seed=(work.sampling.seed + at) & SEED_MASK)
            for at, work in enumerate(answers)
        )
        return [replace(work, sampling=own) for work, own in zip(answers, samplings, strict=True)]


class ContentPart(Body):
    type: str
    text: str | None = None


class FunctionCall(Body):
    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCall(Body):
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCall

    def as_dict(self) -> dict[str, Any]:
        """Chat templates take the arguments as an object, not as the string that OpenAI makes of it."""
        arguments: Any = self.function.arguments or {}
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError as error:
                message = f"tool_calls.function.arguments: not JSON ({error})"
                raise BadRequest("invalid_request", message) from error
        call = {"type": "function", "function": {"name": self.function.name, "arguments": arguments}}
        return call | ({"id": self.id} if self.id else {})


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Many[ContentPart] | None = None
    name: str | None = None
    tool_calls: Many[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    def as_dict(self, model: str) -> dict[str, Any]:
        role = "system" if self.role == "developer" else self.role
        message: dict[str, Any] = {"role": role, "content": self._text(model)}
        if self.name:
            message["name"] = self.name
        if self.reasoning_content:
            message["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            message["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        if self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        return message

    def _text(self, model: str) -> str:
        if not isinstance(self.content, list):
            return self.content or ""
        other = next((part.type for part in self.content if part.type not in ("text", "input_text")), None)
        if other:
            refuse(
                "messages.content", f"model {model!r} reads text only; leave out the part of type {other!r}"
            )
        return "".join(part.text or "" for part in self.content)


class NamedSchema(Body):
    name: str | None = None
    json_schema: dict[str, Any] = Field(default_factory=lambda: dict(ANY_OBJECT), alias="schema")


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @property
    def as_schema(self) -> dict[str, Any] | None:
        """Raises BadRequest."""
        if self.type != "json_schema":
            return None if self.type == "text" else dict(ANY_OBJECT)
        if self.json_schema is None:
            raise BadRequest("invalid_request", "response_format.json_schema: is missing")
        return self.json_schema.json_schema


class ChatBody(TextBody):
    messages: Many[Message] = Field(min_length=1)
    max_completion_tokens: Whole | None = Field(default=None, ge=1, lt=LIMIT)
    tools: Many[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Whole | None = Field(default=None, ge=0, le=20)
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None  # as other local servers take them

    def to_requests(self, model: str, drawn_seed: int) -> list[GenerationRequest]:
        """As requests for the canonical `model`, one an answer. Raises BadRequest."""
        return self.several([self.to_request(model, drawn_seed)])

    def to_request(self, model: str, drawn_seed: int) -> GenerationRequest:
        """As a request for the canonical `model`. Raises BadRequest for what is not supported."""
        tools = None if self.tool_choice == "none" else checked(self.tools)
        json_schema = self.response_format.as_schema if self.response_format else None
        forced = self._forced_tool()
        if forced is not None:
            json_schema = call_schema(tools or (), forced or None)
        limits = (self.max_completion_tokens, self.max_tokens)
        return GenerationRequest(
            model=model,
            kind="chat",
            messages=tuple(message.as_dict(self.model) for message in self.messages),
            tools=tools,
            tool_choice="auto" if forced is None else "required",
            think=False if self.reasoning_effort == "none" else None,
            template=self._template(),
            json_schema=json_schema,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            sampling=self.sampling(drawn_seed),
            max_tokens=next((limit for limit in limits if limit is not None), None),
            stop=self.stops,
        )

    def _forced_tool(self) -> str | None:
        """None where no tool is forced, "" where any may be called, else its name. Raises BadRequest."""
        match self.tool_choice:
            case None | "auto" | "none":
                return None
            case "required":
                return ""
            case {"type": "function", "function": {"name": str(name)}} if name:
                return name
        message = "tool_choice: give `auto`, `none`, `required`, or a function's name as OpenAI has it"
        raise BadRequest("invalid_request", message)

    def _template(self) -> dict[str, Any] | None:
        effort = (
            {} if self.reasoning_effort in (None, "none") else {"reasoning_effort": self.reasoning_effort}
        )
        return effort | (self.chat_template_kwargs or {}) or None


class CompletionBody(TextBody):
    prompt: str | Many[str] | Many[int] | Many[Many[int]]
    suffix: str | None = None
    echo: bool | None = None
    best_of: Whole | None = None
    logprobs: Whole | None = Field(default=None, ge=0, le=20)

    def to_requests(self, model: str, drawn_seed: int) -> list[GenerationRequest]:
        """As `ChatBody.to_requests`, without a template. 16 tokens by default, as OpenAI has it."""
        if self.suffix:
            refuse("suffix", f"model {self.model!r} does not support infilling; leave out `suffix`")
        if self.echo and self.logprobs is not None:
            refuse("echo", "the prompt's own logprobs are not computed; leave out `echo` or `logprobs`")
        if self.best_of is not None and self.best_of > 1:
            refuse("best_of", "one answer at a time")
        return self.several([self._to_request(model, prompt, drawn_seed) for prompt in self._prompts()])

    def echoed(self, work: ModelRequest) -> str:
        if not self.echo or not isinstance(work, GenerationRequest):
            return ""
        if work.prompt is None:
            refuse("echo", "only a prompt given as text is echoed; leave it out, or send text")
        return work.prompt

    def _to_request(self, model: str, prompt: str | list[int], drawn_seed: int) -> GenerationRequest:
        return GenerationRequest(
            model=model,
            kind="text",
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_ids=None if isinstance(prompt, str) else tuple(prompt),
            sampling=self.sampling(drawn_seed),
            max_tokens=self.max_tokens or 16,
            stop=self.stops,
            top_logprobs=self.logprobs,
        )

    def _prompts(self) -> list[str | list[int]]:
        """One or many texts, or the token ids of one or many."""
        if not self.prompt:
            if isinstance(self.prompt, str):
                return [""]
            raise BadRequest("empty_prompt", "prompt: give at least one text")
        alone = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        prompts = cast(list[str | list[int]], [self.prompt] if alone else self.prompt)
        # No context is so long, and the engine would read them all to say so.
        if any(isinstance(prompt, list) and len(prompt) > MOST_IDS for prompt in prompts):
            raise BadRequest("invalid_request", f"prompt: give at most {MOST_IDS} token ids")
        return prompts


class EmbeddingsBody(Body):
    model: str = Field(min_length=1)
    input: str | Many[str] | Many[int] | Many[Many[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Whole | None = Field(default=None, ge=1, lt=LIMIT)
    user: str | None = None

    def to_request(self, model: str) -> EmbeddingRequest:
        if not self.input:
            raise BadRequest("invalid_request", "input: give at least one text")
        texts = [self.input] if isinstance(self.input, str) else self.input
        strings = tuple(text for text in texts if isinstance(text, str))
        if len(strings) != len(texts):
            refuse(
                "input",
                "token ids are not supported: they are another tokenizer's than this model's; send text "
                "(langchain's OpenAIEmbeddings does with check_embedding_ctx_length=False)",
            )
        return EmbeddingRequest(model, strings)
