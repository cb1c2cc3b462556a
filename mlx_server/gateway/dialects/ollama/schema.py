"""Ollama's request bodies, and the model requests that they mean. Pure.

The defaults are Ollama's own, except for `repeat_penalty`: the engine that Ollama uses now has none (1.0).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, Field, field_validator

from mlx_server.gateway.dialects.bodies import (
    Body,
    ListOf,
    ModelName,
    StopText,
    StopTexts,
    WholeNumber,
    not_supported,
)
from mlx_server.gateway.dialects.sampling_fields import (
    INT32_LIMIT,
    ContextLength,
    RepeatPenalty,
    Share,
    Temperature,
    TopK,
    make_sampling,
)
from mlx_server.gateway.dialects.tools import call_arguments, check_argument_texts, checked_tools
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import (
    ANY_OBJECT,
    EmbeddingRequest,
    GenerationRequest,
    LoadRequest,
    UnloadRequest,
)
from mlx_server.protocol import Sampling
from vestal.config.units import duration_s

KEEP_LOADED_S = -1.0
"""A keep-alive that never expires, as the protocol has it."""
MAX_KEEP_ALIVE_S = 10 * 365 * 86_400.0
"""A longer keep-alive never expires: it is added to times, and 10¹² s from now no calendar has a date."""
DEFAULT_REPEAT_LAST_N = 64


class Options(Body):
    seed: WholeNumber | None = None
    temperature: Temperature = None
    top_p: Share = None
    top_k: TopK = None
    min_p: Share = None
    repeat_penalty: RepeatPenalty = None
    repeat_last_n: WholeNumber | None = Field(default=None, ge=-1, lt=INT32_LIMIT)
    presence_penalty: float | None = Field(default=None, ge=-100, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-100, le=100)
    num_predict: WholeNumber | None = Field(default=None, lt=INT32_LIMIT)
    num_ctx: ContextLength = None
    stop: StopTexts | StopText | None = None

    def sampling(self, drawn_seed: int) -> Sampling:
        """Return the sampling settings. A seed of -1 means `drawn_seed`, as no seed does.

        `repeat_last_n` 0 switches the penalty off, and -1 extends it to the whole context.
        """
        last_n = _or(self.repeat_last_n, DEFAULT_REPEAT_LAST_N)
        return make_sampling(
            drawn_seed,
            seed=self.seed,
            temperature=_or(self.temperature, 0.8),
            top_p=_or(self.top_p, 0.9),
            top_k=_or(self.top_k, 40),
            min_p=self.min_p,
            repeat_penalty=None if last_n == 0 else self.repeat_penalty,
            repeat_last_tokens={0: DEFAULT_REPEAT_LAST_N, -1: INT32_LIMIT - 1}.get(last_n, last_n),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
        )

    @property
    def max_tokens(self) -> int | None:
        """Return the limit. -1 and -2 (fill the context), and 0 as in Ollama's runner, are no limit."""
        return self.num_predict if self.num_predict is not None and self.num_predict > 0 else None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)


class ModelBody(Body):
    """A body that names a model, in the field `model` or in the older `name`."""

    model: ModelName = Field(validation_alias=AliasChoices("model", "name"))
    stream: bool | None = None
    keep_alive: str | float | int | None = None
    options: Options | None = None

    @field_validator("keep_alive")
    @classmethod
    def _must_be_a_duration(cls, value: str | float | None) -> str | float | None:
        if value is not None:
            duration_s(value)
        return value

    @property
    def keep_alive_s(self) -> float | None:
        if self.keep_alive is None:
            return None
        value = duration_s(self.keep_alive)
        return KEEP_LOADED_S if value > MAX_KEEP_ALIVE_S else value

    @property
    def unloads(self) -> bool:
        """Return whether a body without a prompt asks to unload the model, by a keep-alive of 0."""
        return self.keep_alive_s == 0

    def to_load_request(self, model: str) -> LoadRequest | UnloadRequest:
        """Return what a body without a prompt means, for the model of this canonical name."""
        return UnloadRequest(model) if self.unloads else LoadRequest(model, self.keep_alive_s)


class TextBody(ModelBody):
    """The fields that /api/chat and /api/generate have in common."""

    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: WholeNumber | None = Field(default=None, ge=0, le=20)

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """Return the schema of the answer, or None for any text. Raises BadRequest."""
        if not self.format:
            return None
        if isinstance(self.format, dict):
            return self.format
        if self.format != "json":
            raise BadRequest("invalid_request", 'format: give "json" or a JSON schema', field="format")
        return dict(ANY_OBJECT)


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
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: ListOf[Any] | None = None
    tool_calls: ListOf[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def as_dict(self, field: str) -> dict[str, Any]:
        """Return the message, which stands in the body's `field`, in the form that chat templates take.

        Raises BadRequest.
        """
        calls = self.tool_calls or ()
        optional = {
            "tool_calls": [call.as_dict(f"{field}.tool_calls.{n}") for n, call in enumerate(calls)] or None,
            "name": self.tool_name,
            "tool_call_id": self.tool_call_id,
            "reasoning_content": self.thinking,
        }
        given = {key: value for key, value in optional.items() if value is not None}
        return {"role": self.role, "content": self.content or "", **given}


class ChatBody(TextBody):
    messages: ListOf[Message] | None = None
    tools: ListOf[dict[str, Any]] | None = None

    @property
    def has_prompt(self) -> bool:
        """Return whether there are messages; without any the model is only loaded or unloaded."""
        return bool(self.messages)

    def to_request(self, model: str, drawn_seed: int) -> GenerationRequest:
        """Return the request for the model of this canonical name. Raises BadRequest."""
        if any(message.images for message in self.messages or ()):
            raise _no_images(self.model)
        calls = (call for message in self.messages or () for call in message.tool_calls or ())
        arguments = (call.function.arguments for call in calls)
        check_argument_texts(text for text in arguments if isinstance(text, str))
        return _generation_request(
            self,
            model,
            drawn_seed,
            kind="chat",
            messages=tuple(
                message.as_dict(f"messages.{number}") for number, message in enumerate(self.messages or ())
            ),
            tools=checked_tools(self.tools),
        )


class GenerateBody(TextBody):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: ListOf[WholeNumber] | None = None
    raw: bool | None = None
    images: ListOf[Any] | None = None

    @property
    def has_prompt(self) -> bool:
        """Return whether there is a prompt; without one the model is only loaded or unloaded.

        Raises BadRequest for images.
        """
        if self.images:
            raise _no_images(self.model)
        return bool(self.prompt or self.suffix)

    def to_request(self, model: str, drawn_seed: int) -> GenerationRequest:
        """Return the request for the model of this canonical name. Raises BadRequest.

        The prompt is a user's message, or with `raw` the text that the model continues.
        """
        if self.suffix:
            not_supported("suffix", f"model {self.model!r} does not support infilling; leave out `suffix`")
        for name in ("template", "context"):
            if getattr(self, name):
                not_supported(
                    name, f"`{name}` is not supported; use /api/chat, or `raw` with the whole prompt"
                )
        if self.raw:
            return _generation_request(self, model, drawn_seed, kind="text", prompt=self.prompt)
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = (*system, {"role": "user", "content": self.prompt or ""})
        return _generation_request(self, model, drawn_seed, kind="chat", messages=messages)


class EmbedBody(ModelBody):
    input: str | ListOf[str] | None = None
    truncate: bool | None = None
    dimensions: WholeNumber | None = Field(default=None, ge=0, lt=INT32_LIMIT)

    def to_request(self, model: str) -> EmbeddingRequest:
        """Return the request; without texts where the input is empty, which only loads the model."""
        given = [self.input] if isinstance(self.input, str) else self.input or []
        texts = () if self.input == "" else tuple(given)
        return EmbeddingRequest(model, texts, self.truncate is not False, self.keep_alive_s)


class EmbeddingsBody(ModelBody):
    prompt: str | None = None

    def to_request(self, model: str) -> EmbeddingRequest:
        """Return the request; without texts where the prompt is empty, which only loads the model."""
        return EmbeddingRequest(model, (self.prompt,) if self.prompt else (), True, self.keep_alive_s)


def _generation_request(body: TextBody, model: str, drawn_seed: int, **prompt: Any) -> GenerationRequest:
    options = body.options or Options()
    return GenerationRequest(
        model=model,
        json_schema=body.json_schema,
        think=None if body.think is None else bool(body.think),
        template={"reasoning_effort": body.think} if isinstance(body.think, str) else None,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        sampling=options.sampling(drawn_seed),
        max_tokens=options.max_tokens,
        stop=options.stop_strings,
        context_tokens=options.num_ctx,
        keep_alive_s=body.keep_alive_s,
        **prompt,
    )


def _no_images(model: str) -> BadRequest:
    return BadRequest("not_supported", f"model {model!r} reads text only; leave out `images`", field="images")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
