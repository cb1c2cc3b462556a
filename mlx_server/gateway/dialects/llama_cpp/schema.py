"""The bodies of /tokenize, /detokenize and /apply-template, and their conversion to requests for a model.
Pure.

`model` may be missing, because a llama-server has only one model. vLLM's clients write `prompt` instead of
`content`, and `add_special_tokens` instead of `add_special`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import AliasChoices, Field

from mlx_server.gateway.dialects.bodies import Body, ListOf, ModelName, not_supported
from mlx_server.gateway.dialects.openai.messages import Message
from mlx_server.gateway.dialects.openai.schema import MAX_PROMPT_IDS, ChatBody
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.reader import ImageReader
from mlx_server.gateway.requests.model_requests import GenerationRequest


class TokenBody(Body):
    model: ModelName | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether the answer is known to be empty, so that no engine is needed."""
        return False

    def to_request(self, model: str, images: ImageReader | None = None) -> GenerationRequest:
        """Return a request that generates nothing: the engine only reports the tokens of the prompt and their
        text. `model` is the model's canonical name.

        `images` collects the images; if it is None, the model reads text only. Raises BadRequest if the body
        asks for something unsupported or cannot be used, and TooLarge if the arguments of past tool calls
        have too many values.
        """
        raise NotImplementedError


class TokenizeBody(TokenBody):
    content: str = Field(validation_alias=AliasChoices("content", "prompt"))
    add_special: bool | None = Field(
        default=None, validation_alias=AliasChoices("add_special", "add_special_tokens")
    )
    parse_special: bool | None = None
    with_pieces: bool | None = None

    @property
    def is_empty(self) -> bool:
        return not self.content and not self.add_special

    def to_request(self, model: str, images: ImageReader | None = None) -> GenerationRequest:
        if self.parse_special is False:
            not_supported("parse_special", "special tokens in a text are always read as such; leave it out")
        return _report(
            model,
            prompt=self.content,
            adds_special_tokens=bool(self.add_special),
            reports_pieces=bool(self.with_pieces),
        )


class DetokenizeBody(TokenBody):
    tokens: ListOf[int]

    @property
    def is_empty(self) -> bool:
        return not self.tokens

    def to_request(self, model: str, images: ImageReader | None = None) -> GenerationRequest:
        if len(self.tokens) > MAX_PROMPT_IDS:
            raise BadRequest("invalid_request", f"tokens: give at most {MAX_PROMPT_IDS} token ids")
        return _report(model, prompt_ids=tuple(self.tokens))


class ApplyTemplateBody(TokenBody):
    messages: ListOf[Message] = Field(min_length=1)
    tools: ListOf[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def to_request(self, model: str, images: ImageReader | None = None) -> GenerationRequest:
        chat = ChatBody(
            model=model,
            messages=self.messages,
            tools=self.tools,
            tool_choice=self.tool_choice,
            reasoning_effort=self.reasoning_effort,
            chat_template_kwargs=self.chat_template_kwargs,
        )
        return replace(chat.to_requests(model, 0, images)[0], count_only=True, reports_prompt=True)


def _report(model: str, **prompt: Any) -> GenerationRequest:
    return GenerationRequest(model=model, kind="text", count_only=True, reports_prompt=True, **prompt)
