"""Ollama's request bodies, and their conversion to requests for a model. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from mlx_server.gateway.dialects.bodies import Body, ListOf, ModelName, WholeNumber
from mlx_server.gateway.dialects.ollama.go_template import render_go_template
from mlx_server.gateway.dialects.ollama.messages import Message, chat_messages, with_images
from mlx_server.gateway.dialects.ollama.options import EmbeddingOptions, Options
from mlx_server.gateway.dialects.sampling_fields import INT32_LIMIT
from mlx_server.gateway.dialects.tools import check_argument_texts, checked_tools
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.reader import ImageReader
from mlx_server.gateway.requests.model_requests import (
    ANY_OBJECT,
    EmbeddingRequest,
    GenerationRequest,
    LoadRequest,
    UnloadRequest,
)
from vestal.config.units import duration_s

KEEP_LOADED_S = -1.0
"""The keep-alive that never expires, as the protocol between gateway and engine represents it."""
MAX_KEEP_ALIVE_S = 10 * 365 * 86_400.0
"""A longer keep-alive is treated as one that never expires. It is added to times, and with a value such as
10¹² s the resulting date would be beyond every calendar."""
MAX_TOP_LOGPROBS = 20
EFFORTS = {"low": "low", "medium": "medium", "high": "high", "max": "high"}
"""The levels of `think`, and their names in chat templates. gpt-oss has no level above `high`."""


class ModelBody(Body):
    """A body that names a model, in the field `model` or in the older field `name`. `name` counts if `model`
    is missing or empty: Ollama's Go package sends both, and one of them is empty.
    """

    model: ModelName
    stream: bool | None = None
    keep_alive: str | float | int | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_is_model(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("model") and data.get("name"):
            return data | {"model": data["name"]}
        return data

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
        """Return whether `keep_alive` is 0. In a body without a prompt, which the caller has to check, this
        asks to unload the model.
        """
        return self.keep_alive_s == 0

    def to_load_request(self, model: str) -> LoadRequest | UnloadRequest:
        """Return the request to load the model, or to unload it if `self.unloads` is True. `model` is the
        model's canonical name.
        """
        return UnloadRequest(model) if self.unloads else LoadRequest(model, self.keep_alive_s)


class TextBody(ModelBody):
    """The fields that /api/chat and /api/generate have in common.

    `truncate` and `shift`, both True by default, say what happens to a prompt that is too long for the
    context:

    without `truncate`            The request is refused. `shift` has no effect.
    `truncate`, without `shift`   A chat is shortened so that the answer has room for at least one token. A
                                  prompt of /api/generate is refused.
    `truncate` and `shift`        The prompt is shortened so that the answer has room for an eighth of the
                                  context, or for `num_predict` tokens if these are fewer.

    In Ollama, `shift` instead drops old tokens when the context fills up during an answer. Here, an answer
    ends when the context is full, so `shift` provides the room before the answer begins.
    """

    options: Options | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: WholeNumber | None = None
    truncate: bool | None = None
    shift: bool | None = None

    @field_validator("think")
    @classmethod
    def _is_a_level(cls, value: bool | str | None) -> bool | str | None:
        if isinstance(value, str) and value not in EFFORTS:
            levels = ", ".join(f'"{level}"' for level in EFFORTS)
            raise ValueError(f"invalid think value (must be {levels}, true, or false)")
        return value

    @field_validator("top_logprobs")
    @classmethod
    def _is_within_limits(cls, value: int | None) -> int | None:
        if value is not None and not 0 <= value <= MAX_TOP_LOGPROBS:
            raise ValueError(f"must be between 0 and {MAX_TOP_LOGPROBS}")
        return value

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema that the answer must match; None if it may be any text. Raises BadRequest if
        `format` is neither "json" nor a schema.
        """
        if self.format in (None, ""):
            return None
        if isinstance(self.format, dict):
            return self.format
        if self.format != "json":
            message = 'format: invalid format; expected "json" or a valid JSON Schema object'
            raise BadRequest("invalid_request", message, field="format")
        return dict(ANY_OBJECT)

    def generation_request(self, model: str, drawn_seed: int, **prompt: Any) -> GenerationRequest:
        """Return the generation request. `model` is the model's canonical name. `drawn_seed` is the seed of
        the sampling if the `seed` in `options` is missing or -1. `prompt` are the fields of
        `GenerationRequest` that hold the prompt. Raises BadRequest if `format` is wrong.
        """
        options = self.options or Options()
        effort = EFFORTS[self.think] if isinstance(self.think, str) else None
        truncate = self.truncate is not False
        return GenerationRequest(
            model=model,
            json_schema=self.json_schema,
            think=None if self.think is None else bool(self.think),
            template={"reasoning_effort": effort} if effort else None,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            sampling=options.sampling(drawn_seed),
            max_tokens=options.max_tokens,
            stop=options.stop_strings,
            context_tokens=options.num_ctx,
            keep_alive_s=self.keep_alive_s,
            truncate=truncate,
            shift=truncate and self.shift is not False,
            **prompt,
        )


class ChatBody(TextBody):
    messages: ListOf[Message] | None = None
    tools: ListOf[dict[str, Any]] | None = None

    @property
    def has_prompt(self) -> bool:
        """Return whether there are messages. Without any, the request only loads or unloads the model."""
        return bool(self.messages)

    def to_request(self, model: str, drawn_seed: int, images: ImageReader | None = None) -> GenerationRequest:
        """Return the generation request. `model` is the model's canonical name. `drawn_seed` is the seed of
        the sampling if the `seed` in `options` is missing or -1.

        `images` collects the images; if it is None, the model reads text only. Raises BadRequest if a
        message, a tool or `format` cannot be used, and TooLarge if the arguments of past tool calls have too
        many values.
        """
        images = images or ImageReader(self.model)
        calls = (call for message in self.messages or () for call in message.tool_calls or ())
        arguments = (call.function.arguments for call in calls)
        check_argument_texts(text for text in arguments if isinstance(text, str))
        messages = chat_messages(self.messages or (), images)
        tools = checked_tools(self.tools)
        return self.generation_request(
            model, drawn_seed, kind="chat", messages=messages, images=images.files, tools=tools
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
        """Return whether there is a prompt. Without one, the request only loads or unloads the model."""
        return bool(self.prompt or self.suffix or self.images)

    def to_request(self, model: str, drawn_seed: int, images: ImageReader | None = None) -> GenerationRequest:
        """Return the generation request. `model` is the model's canonical name. `drawn_seed` is the seed of
        the sampling if the `seed` in `options` is missing or -1. Raises BadRequest if fields exclude each
        other or cannot be used.

        The prompt becomes a user's message, rendered by the model's chat template or by the body's `template`
        in Jinja. With `raw`, the model continues the prompt as a text; with a `template` in Go's language, it
        continues the text that the template makes of the prompt. With `suffix` and no `template`, the model
        fills the gap between the prompt and `suffix`. The tokens of `context`, an earlier conversation,
        precede the prompt. `images` collects the images; if it is None, the model reads text only.
        """
        prompt = self.prompt or ""
        images = images or ImageReader(self.model)
        if self.images:
            self._check_images(images)
        if self.raw:
            if self.template or self.system or self.context:
                message = "raw: raw mode does not support template, system, or context"
                raise BadRequest("invalid_request", message, field="raw")
            return self.generation_request(
                model, drawn_seed, kind="text", prompt=prompt, suffix=self.suffix or None
            )
        known = {"context_ids": tuple(self.context or ()), "returns_context": True}
        if self.template and "{%" not in self.template:  # else it is in Jinja
            prompt = render_go_template(self.template, self._template_values())
            return self.generation_request(model, drawn_seed, kind="text", prompt=prompt, **known)
        if self.suffix and not self.template:
            return self.generation_request(
                model, drawn_seed, kind="text", prompt=prompt, suffix=self.suffix, **known
            )
        system = [{"role": "system", "content": self.system}] if self.system else []
        content = with_images(prompt, self.images or (), "images", images)
        messages = (*system, {"role": "user", "content": content})
        return self.generation_request(
            model,
            drawn_seed,
            kind="chat",
            messages=messages,
            images=images.files,
            chat_template=self.template or None,
            shortens_text=True,
            **known,
        )

    def _check_images(self, images: ImageReader) -> None:
        """Raise BadRequest if the model reads text only, or if `raw`, `suffix` or a `template` in Go's
        language leaves no place for the body's images in the prompt.
        """
        if not images.reads_images:
            raise images.refusal("images", "images")
        is_text = self.raw or self.suffix or (self.template and "{%" not in self.template)
        if is_text:  # only the model's own template defines where in the text an image belongs
            message = "images: they need the model's chat template; leave out `raw`, `suffix` and `template`"
            raise BadRequest("not_supported", message, field="images")

    def _template_values(self) -> dict[str, Any]:
        system = [{"Role": "system", "Content": self.system}] if self.system else []
        return {
            "System": self.system or "",
            "Prompt": self.prompt or "",
            "Suffix": self.suffix or "",
            "Response": "",
            "Messages": [*system, {"Role": "user", "Content": self.prompt or ""}],
            "Tools": [],
            "Think": bool(self.think),
            "ThinkLevel": self.think if isinstance(self.think, str) else "medium" if self.think else "",
            "IsThinkSet": self.think is not None,
        }


class EmbedBody(ModelBody):
    options: EmbeddingOptions | None = None
    input: str | ListOf[str] | None = None
    truncate: bool | None = None
    dimensions: WholeNumber | None = Field(default=None, ge=0, lt=INT32_LIMIT)

    def to_request(self, model: str) -> EmbeddingRequest:
        """Return the embedding request. If the input is empty, the request has no texts, and only loads the
        model.
        """
        given = [self.input] if isinstance(self.input, str) else self.input or []
        texts = () if self.input == "" else tuple(given)
        return EmbeddingRequest(
            model, texts, self.truncate is not False, self.keep_alive_s, _context_tokens(self.options)
        )


class EmbeddingsBody(ModelBody):
    options: EmbeddingOptions | None = None
    prompt: str | None = None

    def to_request(self, model: str) -> EmbeddingRequest:
        """Return the embedding request. If the prompt is empty, the request has no texts, and only loads the
        model.
        """
        texts = (self.prompt,) if self.prompt else ()
        return EmbeddingRequest(model, texts, True, self.keep_alive_s, _context_tokens(self.options))


def _context_tokens(options: EmbeddingOptions | None) -> int | None:
    return options.context_tokens if options else None
