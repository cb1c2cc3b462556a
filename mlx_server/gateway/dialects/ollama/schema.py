"""Ollama's request bodies, and what they mean as requests of ours. Pure.

Defaults are Ollama's own, but for `repeat_penalty`: its present engine takes none by default (1.0).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, Field, field_validator

from mlx_server.gateway.dialects.bodies import Body, Many, Whole, refuse
from mlx_server.gateway.dialects.tools import checked
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import ANY_OBJECT, EmbeddingRequest, GenerationRequest
from mlx_server.protocol import Sampling
from vestal.config.units import duration_s

FOR_EVER_S = -1.0
SEED_MASK = 2**63 - 1


class Options(Body):
    seed: Whole | None = None
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: Whole | None = Field(default=None, ge=0, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repeat_penalty: float | None = Field(default=None, gt=0, le=100)
    repeat_last_n: Whole | None = Field(default=None, ge=-1, lt=2**31)
    presence_penalty: float | None = Field(default=None, ge=-100, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-100, le=100)
    num_predict: Whole | None = Field(default=None, lt=2**31)
    num_ctx: Whole | None = Field(default=None, ge=1, lt=2**31)
    stop: Many[str] | str | None = None

    def sampling(self, drawn_seed: int) -> Sampling:
        """With Ollama's defaults; a seed of -1, as in Ollama, is none."""
        seed = drawn_seed if self.seed is None or self.seed == -1 else self.seed & SEED_MASK
        last = 64 if self.repeat_last_n is None else self.repeat_last_n
        return Sampling(
            seed=seed,
            temperature=_or(self.temperature, 0.8),
            top_p=_or(self.top_p, 0.9),
            top_k=_or(self.top_k, 40),
            min_p=_or(self.min_p, 0.0),
            repeat_penalty=1.0 if last == 0 else _or(self.repeat_penalty, 1.0),
            repeat_last_tokens=last if last > 0 else 64 if last == 0 else 2**31 - 1,
            presence_penalty=_or(self.presence_penalty, 0.0),
            frequency_penalty=_or(self.frequency_penalty, 0.0),
        )

    @property
    def max_tokens(self) -> int | None:
        """-1 and -2 (fill the context), and 0 as in Ollama's runner, are no limit."""
        return self.num_predict if self.num_predict is not None and self.num_predict > 0 else None

    @property
    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)


class ModelBody(Body):
    """Any body that names a model; `name` is the older word for it."""

    model: str = Field(min_length=1, validation_alias=AliasChoices("model", "name"))
    stream: bool | None = None
    keep_alive: str | float | int | None = None
    options: Options | None = None

    @field_validator("keep_alive")
    @classmethod
    def _duration(cls, value: str | float | None) -> str | float | None:
        if value is not None:
            duration_s(value)
        return value

    @property
    def keep_alive_s(self) -> float | None:
        if self.keep_alive is None:
            return None
        value = duration_s(self.keep_alive)
        return FOR_EVER_S if value == float("inf") else value

    @property
    def unloads(self) -> bool:
        return self.keep_alive_s == 0

    @property
    def settings(self) -> Options:
        return self.options or Options()


class TextBody(ModelBody):
    """What chat and generate have in common."""

    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Whole | None = Field(default=None, ge=0, le=20)

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """Raises BadRequest."""
        if not self.format:
            return None
        if isinstance(self.format, dict):
            return self.format
        if self.format != "json":
            raise BadRequest("invalid_request", 'format: give "json" or a JSON schema', field="format")
        return dict(ANY_OBJECT)


class Message(Body):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Many[Any] | None = None
    tool_calls: Many[dict[str, Any]] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        more = {
            "tool_calls": self.tool_calls,
            "name": self.tool_name,
            "tool_call_id": self.tool_call_id,
            "reasoning_content": self.thinking,
        }
        told = {key: value for key, value in more.items() if value is not None}
        return {"role": self.role, "content": self.content or "", **told}


class ChatBody(TextBody):
    messages: Many[Message] | None = None
    tools: Many[dict[str, Any]] | None = None

    def to_request(self, model: str, drawn_seed: int) -> GenerationRequest:
        """As a request for the canonical `model`. Raises BadRequest for what is not supported."""
        if any(message.images for message in self.messages or ()):
            raise _no_images(self.model)
        return _generation(
            self,
            model,
            drawn_seed,
            kind="chat",
            messages=tuple(message.as_dict() for message in self.messages or ()),
            tools=checked(self.tools),
        )


class GenerateBody(TextBody):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: Many[Whole] | None = None
    raw: bool | None = None
    images: Many[Any] | None = None

    @property
    def asks(self) -> bool:
        """Whether there is something to answer; else the model is only loaded or unloaded."""
        if self.images:
            raise _no_images(self.model)
        return bool(self.prompt or self.suffix)

    def to_request(self, model: str, drawn_seed: int) -> GenerationRequest:
        """As `ChatBody.to_request`: one user's message, unless `raw`."""
        if self.suffix:
            refuse("suffix", f"model {self.model!r} does not support infilling; leave out `suffix`")
        for name in ("template", "context"):
            if getattr(self, name):
                refuse(name, f"`{name}` is not supported; use /api/chat, or `raw` with the whole prompt")
        if self.raw:
            return _generation(self, model, drawn_seed, kind="text", prompt=self.prompt)
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = (*system, {"role": "user", "content": self.prompt or ""})
        return _generation(self, model, drawn_seed, kind="chat", messages=messages)


class EmbedBody(ModelBody):
    input: str | Many[str] | None = None
    truncate: bool | None = None
    dimensions: Whole | None = Field(default=None, ge=0, lt=2**31)

    def to_request(self, model: str) -> EmbeddingRequest:
        texts = [self.input] if isinstance(self.input, str) else self.input or []
        if isinstance(self.input, str) and not self.input:
            texts = []  # Ollama's meaning: load the model
        truncate = self.truncate is not False
        return EmbeddingRequest(model, tuple(texts), truncate, self.keep_alive_s)


class EmbeddingsBody(ModelBody):
    prompt: str | None = None

    def to_request(self, model: str) -> EmbeddingRequest:
        return EmbeddingRequest(model, (self.prompt,) if self.prompt else (), True, self.keep_alive_s)


def _generation(body: TextBody, model: str, drawn_seed: int, **what: Any) -> GenerationRequest:
    settings = body.settings
    return GenerationRequest(
        model=model,
        json_schema=body.json_schema,
        think=None if body.think is None else bool(body.think),
        template={"reasoning_effort": body.think} if isinstance(body.think, str) else None,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        sampling=settings.sampling(drawn_seed),
        max_tokens=settings.max_tokens,
        stop=settings.stops,
        context_tokens=settings.num_ctx,
        keep_alive_s=body.keep_alive_s,
        **what,
    )


def _no_images(model: str) -> BadRequest:
    return BadRequest("not_supported", f"model {model!r} reads text only; leave out `images`", field="images")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
