"""OpenAI's request bodies, and their conversion to requests for a model. Pure. The defaults are OpenAI's
own.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, cast

from pydantic import Field

from mlx_server.gateway.dialects.bodies import Body, ListOf, ModelName, WholeNumber, not_supported
from mlx_server.gateway.dialects.chat.tool_choice import CallRules, ChosenTools
from mlx_server.gateway.dialects.openai.chat_tools import (
    choice_of_function_call,
    offered_tools,
    tools_of_functions,
)
from mlx_server.gateway.dialects.openai.messages import Message, replaced_parts, template_messages
from mlx_server.gateway.dialects.openai.text_body import TextBody
from mlx_server.gateway.dialects.sampling_fields import INT32_LIMIT, AnswerLimit, AnswerLimitOrZero
from mlx_server.gateway.errors import BadRequest, quoted
from mlx_server.gateway.images.reader import ImageReader
from mlx_server.gateway.requests.model_requests import (
    ANY_OBJECT,
    EmbeddingRequest,
    GenerationRequest,
)

MAX_PROMPT_IDS = 2**20
"""The limit on the token ids of a prompt. No context is longer, and without the limit the engine would
process all ids before it refused the prompt."""
COMPLETION_MAX_TOKENS = 16


class NamedSchema(Body):
    name: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Body):
    """The format that the answer must have: text, or JSON. OpenAI's clients send a JSON schema inside
    `json_schema`. llama.cpp's and Together's clients send it in a field `schema` next to `type`, which is
    `bare_schema` here.
    """

    type: str = "text"
    json_schema: NamedSchema | None = None
    bare_schema: dict[str, Any] | None = Field(default=None, alias="schema")

    @property
    def as_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema that the answer must match; None if it may be any text. Raises BadRequest if
        the schema is missing or the type is unknown.
        """
        match self.type:
            case "text":
                return None
            case "json_object":
                return self.bare_schema or dict(ANY_OBJECT)
            case "json_schema" if self.json_schema is not None:
                schema = self.json_schema.json_schema
                return dict(ANY_OBJECT) if schema is None else schema
            case "json_schema" if self.bare_schema is not None:
                return self.bare_schema
            case "json_schema":
                raise BadRequest("invalid_request", "response_format.json_schema: is missing")
        not_supported(
            "response_format.type",
            f"{quoted(self.type)} is not served here; give `text`, `json_object` or `json_schema`",
        )


class Reasoning(Body):
    """The field `reasoning` of a chat, such as `{"effort": "high"}`, in which OpenRouter's and Ollama's
    clients send what OpenAI's clients send as `reasoning_effort`. `"enabled": false` switches thinking off.
    """

    effort: str | None = None
    enabled: bool | None = None


class ChatBody(TextBody):
    """The body of a chat completion. `functions` and `function_call` are OpenAI's older form of `tools`."""

    messages: ListOf[Message] = Field(min_length=1)
    max_completion_tokens: AnswerLimit = None
    tools: ListOf[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: ListOf[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: WholeNumber | None = Field(default=None, ge=0, le=20)
    reasoning_effort: str | None = None
    modalities: ListOf[str] | None = None
    web_search_options: dict[str, Any] | None = None
    # not OpenAI's own
    reasoning: Reasoning | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def to_requests(
        self, model: str, drawn_seed: int, images: ImageReader | None = None
    ) -> list[GenerationRequest]:
        """Return a list of one generation request: a chat has one prompt, while other bodies may have
        several. The caller repeats the request for `n` answers, with different seeds. `model` is the model's
        canonical name. `drawn_seed` is the seed of the sampling if the body's `seed` is missing or -1.

        `images` collects the images; if it is None, the model reads text only. Raises BadRequest if a
        message, a tool or another field cannot be used, and TooLarge if the arguments of past tool calls have
        too many values.
        """
        images = images or ImageReader(self.model)
        if "audio" in (self.modalities or ()):
            not_supported("modalities", "the models here write text only; leave out `audio`")
        chosen = self._chosen_tools
        json_schema = self.response_format.as_schema if self.response_format else None
        limits = (self.max_completion_tokens, self.max_tokens)
        request = GenerationRequest(
            model=model,
            kind="chat",
            messages=template_messages(self.messages, images),
            images=images.files,
            tools=chosen.functions,
            tool_choice="required" if chosen.call_schema else "auto",
            allowed_calls=chosen.rules.allowed,
            think=self._thinks,
            template=self._template(),
            json_schema=chosen.call_schema or json_schema,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            sampling=self.sampling(drawn_seed),
            max_tokens=next((limit for limit in limits if limit is not None), None),
            stop=self.stop_strings,
        )
        return [request]

    @property
    def call_rules(self) -> CallRules:
        return self._chosen_tools.rules

    @property
    def uses_functions(self) -> bool:
        """Return whether the answer's tool calls are written in OpenAI's older form, because the client sent
        `functions`.
        """
        return bool(self.functions) and not self.tools

    def skipped(self, images: ImageReader) -> dict[str, list[str]]:
        web_search = ["web_search_options"] if self.web_search_options is not None else []
        return {
            "tools": [*self._chosen_tools.skipped, *web_search],
            "parts": replaced_parts(self.messages, images),
        }

    @cached_property
    def _chosen_tools(self) -> ChosenTools:
        """Return the tools that are offered to the model, and how it may call them. Raises BadRequest if a
        tool or the tool choice is wrong.
        """
        parallel = self.parallel_tool_calls is not False
        if self.uses_functions:
            functions, choice = (
                tools_of_functions(self.functions),
                choice_of_function_call(self.function_call),
            )
            return offered_tools(functions, choice, parallel=False)
        return offered_tools(self.tools, self.tool_choice, parallel=parallel)

    @property
    def _effort(self) -> str | None:
        return self.reasoning_effort or (self.reasoning.effort if self.reasoning else None)

    @property
    def _thinks(self) -> bool | None:
        """Return False if the client switches thinking off; else None, which leaves the decision to the
        model's template.
        """
        is_off = self._effort == "none" or (self.reasoning is not None and self.reasoning.enabled is False)
        return False if is_off else None

    def _template(self) -> dict[str, Any] | None:
        """Return additional variables for the chat template; None if there are none."""
        effort = {} if self._effort in (None, "none") else {"reasoning_effort": self._effort}
        return effort | (self.chat_template_kwargs or {}) or None


class CompletionBody(TextBody):
    prompt: str | ListOf[str] | ListOf[int] | ListOf[ListOf[int]]
    suffix: str | None = None
    max_tokens: AnswerLimitOrZero = None
    echo: bool | None = None
    best_of: WholeNumber | None = None
    logprobs: WholeNumber | None = Field(default=None, ge=0, le=20)

    def to_requests(
        self, model: str, drawn_seed: int, images: ImageReader | None = None
    ) -> list[GenerationRequest]:
        """Return one generation request for each prompt. The caller repeats each for `n` answers, with
        different seeds. `model` is the model's canonical name. `drawn_seed` is the seed of the sampling if
        the body's `seed` is missing or -1. `images` is not used, because a completion has no images. Raises
        BadRequest if a field asks for something unsupported or there is no prompt.
        """
        if self.echo and self.logprobs is not None and self.stream:
            not_supported("echo", "the logprobs of a prompt are not streamed; leave out `stream`")
        if self.best_of is not None and self.best_of > 1:
            not_supported("best_of", "this server does not choose between answers; leave it out")
        return [self._to_request(model, prompt, drawn_seed) for prompt in self._prompts()]

    @property
    def answer_count(self) -> int:
        return len(self._prompts()) * (self.n or 1)

    def echo_of(self, request: GenerationRequest) -> str:
        if not self.echo or request.reports_prompt or request.prompt_logprobs:
            return ""
        if request.prompt is None:
            not_supported("echo", "token ids are not echoed in a stream; leave out `stream`, or send text")
        return request.prompt

    def _to_request(self, model: str, prompt: str | list[int], drawn_seed: int) -> GenerationRequest:
        if self.suffix and not isinstance(prompt, str):
            not_supported("suffix", "a gap is filled after a prompt of text; send text, or leave it out")
        return GenerationRequest(
            model=model,
            kind="text",
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_ids=None if isinstance(prompt, str) else tuple(prompt),
            suffix=self.suffix or None,
            sampling=self.sampling(drawn_seed),
            max_tokens=COMPLETION_MAX_TOKENS if self.max_tokens is None else self.max_tokens,
            stop=self.stop_strings,
            top_logprobs=self.logprobs,
            reports_prompt=bool(self.echo and not self.stream) and not isinstance(prompt, str),
            prompt_logprobs=bool(self.echo) and self.logprobs is not None,
        )

    def _prompts(self) -> list[str | list[int]]:
        """Return the prompts, each a text or a list of token ids. Raises BadRequest if there is no prompt, or
        one of them has more than MAX_PROMPT_IDS token ids.
        """
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
        """Return the embedding request. `model` is the model's canonical name. Raises BadRequest if `input`
        is empty or contains token ids.
        """
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
