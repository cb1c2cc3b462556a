"""OpenAI's request bodies, and the model requests that they mean. Pure. The defaults are OpenAI's own."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field

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
    AnswerLimit,
    RepeatPenalty,
    Share,
    Temperature,
    TopK,
    make_sampling,
)
from mlx_server.gateway.dialects.tools import call_arguments, call_schema, check_argument_texts, checked_tools
from mlx_server.gateway.errors import BadRequest, quoted
from mlx_server.gateway.requests.model_requests import (
    ANY_OBJECT,
    EmbeddingRequest,
    GenerationRequest,
)
from mlx_server.protocol import Sampling

MAX_PROMPT_IDS = 2**20
"""No context is so long, and the engine would read all the ids before it said so."""
COMPLETION_MAX_TOKENS = 16


class StreamOptions(Body):
    include_usage: bool | None = None


class TextBody(Body):
    """The fields that chat completions and completions have in common."""

    model: ModelName
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature = None
    top_p: Share = None
    max_tokens: AnswerLimit = None
    stop: StopText | StopTexts | None = None
    seed: WholeNumber | None = None
    n: WholeNumber | None = Field(default=None, ge=1, le=128)
    presence_penalty: float | None = Field(default=None, ge=-100, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-100, le=100)
    user: str | None = None
    # not OpenAI's own, but other local servers have them
    top_k: TopK = None
    min_p: Share = None
    repetition_penalty: RepeatPenalty = None

    @property
    def include_usage(self) -> bool:
        """Return whether a stream ends with the counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, drawn_seed: int) -> Sampling:
        return make_sampling(
            drawn_seed,
            seed=self.seed,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repeat_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
        )

    @property
    def stop_strings(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    def echo_of(self, request: GenerationRequest) -> str:
        """Return the text that the answer to `request` begins with. Raises BadRequest."""
        return ""

    @property
    def answer_count(self) -> int:
        """Return how many answers are asked for: `n` to each prompt."""
        return self.n or 1


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

    def as_dict(self, field: str) -> dict[str, Any]:
        """Return the call, which stands in the body's `field`, with arguments as templates take them.

        Raises BadRequest where the string is not a JSON object.
        """
        arguments = call_arguments(f"{field}.function.arguments", self.function.arguments)
        call = {"type": "function", "function": {"name": self.function.name, "arguments": arguments}}
        return call | ({"id": self.id} if self.id else {})


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | ListOf[ContentPart] | None = None
    name: str | None = None
    tool_calls: ListOf[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    def as_dict(self, model: str, field: str) -> dict[str, Any]:
        """Return the message, which stands in the body's `field`, in the form that chat templates take.

        Raises BadRequest.
        """
        role = "system" if self.role == "developer" else self.role
        message: dict[str, Any] = {"role": role, "content": self._text(model)}
        if self.name:
            message["name"] = self.name
        if self.reasoning_content:
            message["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            message["tool_calls"] = [
                call.as_dict(f"{field}.tool_calls.{number}") for number, call in enumerate(self.tool_calls)
            ]
        if self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        return message

    def _text(self, model: str) -> str:
        if not isinstance(self.content, list):
            return self.content or ""
        other = next((part.type for part in self.content if part.type not in ("text", "input_text")), None)
        if other:
            not_supported(
                "messages.content",
                f"model {model!r} reads text only; leave out the part of type {quoted(other)}",
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
        """Return the schema of the answer, or None for any text. Raises BadRequest."""
        if self.type != "json_schema":
            return None if self.type == "text" else dict(ANY_OBJECT)
        if self.json_schema is None:
            raise BadRequest("invalid_request", "response_format.json_schema: is missing")
        return self.json_schema.json_schema


class ChatBody(TextBody):
    messages: ListOf[Message] = Field(min_length=1)
    max_completion_tokens: AnswerLimit = None
    tools: ListOf[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: WholeNumber | None = Field(default=None, ge=0, le=20)
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None  # not OpenAI's own

    def to_requests(self, model: str, drawn_seed: int) -> list[GenerationRequest]:
        """Return the request, of which `n` answers are wanted, for the model of this canonical name.

        Raises BadRequest.
        """
        return [self._to_request(model, drawn_seed)]

    def _to_request(self, model: str, drawn_seed: int) -> GenerationRequest:
        calls = (call for message in self.messages for call in message.tool_calls or ())
        arguments = (call.function.arguments for call in calls)
        check_argument_texts(text for text in arguments if isinstance(text, str))
        tools = None if self.tool_choice == "none" else checked_tools(self.tools)
        json_schema = self.response_format.as_schema if self.response_format else None
        forced = self._forced_tool()
        if forced is not None:
            json_schema = call_schema(tools or (), forced or None)
        limits = (self.max_completion_tokens, self.max_tokens)
        return GenerationRequest(
            model=model,
            kind="chat",
            messages=tuple(
                message.as_dict(self.model, f"messages.{number}")
                for number, message in enumerate(self.messages)
            ),
            tools=tools,
            tool_choice="auto" if forced is None else "required",
            think=False if self.reasoning_effort == "none" else None,
            template=self._template(),
            json_schema=json_schema,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            sampling=self.sampling(drawn_seed),
            max_tokens=next((limit for limit in limits if limit is not None), None),
            stop=self.stop_strings,
        )

    def _forced_tool(self) -> str | None:
        """Return the name of the tool that must be called, "" for any, None where none must be.

        Raises BadRequest.
        """
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
        """Return further variables for the chat template."""
        effort = (
            {} if self.reasoning_effort in (None, "none") else {"reasoning_effort": self.reasoning_effort}
        )
        return effort | (self.chat_template_kwargs or {}) or None


class CompletionBody(TextBody):
    prompt: str | ListOf[str] | ListOf[int] | ListOf[ListOf[int]]
    suffix: str | None = None
    echo: bool | None = None
    best_of: WholeNumber | None = None
    logprobs: WholeNumber | None = Field(default=None, ge=0, le=20)

    def to_requests(self, model: str, drawn_seed: int) -> list[GenerationRequest]:
        """Return a request for each prompt, of which `n` answers are wanted, for the model of this canonical
        name.

        Raises BadRequest.
        """
        if self.suffix:
            not_supported("suffix", f"model {self.model!r} does not support infilling; leave out `suffix`")
        if self.echo and self.logprobs is not None:
            not_supported("echo", "the logprobs of the prompt are not computed; leave out one of the two")
        if self.best_of is not None and self.best_of > 1:
            not_supported("best_of", "this server does not choose between answers; leave it out")
        return [self._to_request(model, prompt, drawn_seed) for prompt in self._prompts()]

    @property
    def answer_count(self) -> int:
        return len(self._prompts()) * (self.n or 1)

    def echo_of(self, request: GenerationRequest) -> str:
        if not self.echo:
            return ""
        if request.prompt is None:
            not_supported("echo", "only a prompt given as text is echoed; leave it out, or send text")
        return request.prompt

    def _to_request(self, model: str, prompt: str | list[int], drawn_seed: int) -> GenerationRequest:
        return GenerationRequest(
            model=model,
            kind="text",
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_ids=None if isinstance(prompt, str) else tuple(prompt),
            sampling=self.sampling(drawn_seed),
            max_tokens=self.max_tokens or COMPLETION_MAX_TOKENS,
            stop=self.stop_strings,
            top_logprobs=self.logprobs,
        )

    def _prompts(self) -> list[str | list[int]]:
        """Return the prompts, each a text or a list of token ids. Raises BadRequest."""
        if not self.prompt:
            if isinstance(self.prompt, str):
                return [""]
            raise BadRequest("empty_prompt", "prompt: give at least one text")
        is_single = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        prompts = cast(list[str | list[int]], [self.prompt] if is_single else self.prompt)
        if any(isinstance(prompt, list) and len(prompt) > MAX_PROMPT_IDS for prompt in prompts):
            raise BadRequest("invalid_request", f"prompt: give at most {MAX_PROMPT_IDS} token ids")
        return prompts


class EmbeddingsBody(Body):
    model: ModelName
    input: str | ListOf[str] | ListOf[int] | ListOf[ListOf[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: WholeNumber | None = Field(default=None, ge=1, lt=INT32_LIMIT)
    user: str | None = None

    def to_request(self, model: str) -> EmbeddingRequest:
        """Return the request for the model of this canonical name. Raises BadRequest."""
        if not self.input:
            raise BadRequest("invalid_request", "input: give at least one text")
        texts = [self.input] if isinstance(self.input, str) else self.input
        strings = tuple(text for text in texts if isinstance(text, str))
        if len(strings) != len(texts):
            not_supported(
                "input",
                "token ids are not supported: they are another tokenizer's than this model's; send text "
                "(langchain's OpenAIEmbeddings does with check_embedding_ctx_length=False)",
            )
        return EmbeddingRequest(model, strings)
