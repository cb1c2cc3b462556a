"""The request bodies of the Responses API. Pure. The defaults are OpenAI's own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mlx_server.gateway.dialects.bodies import Body, ListOf, ModelName, WholeNumber, not_supported
from mlx_server.gateway.dialects.sampling_fields import (
    INT32_LIMIT,
    AnswerLimit,
    Share,
    Temperature,
    make_sampling,
)
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import ANY_OBJECT
from mlx_server.protocol import Sampling

ENCRYPTED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

ShortText = Annotated[str, Field(max_length=512)]
"""A text whose length is limited because it becomes part of the response object, which many events
contain."""


class TextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(Body):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(Body):
    effort: ShortText | None = None
    summary: ShortText | None = None


class CompactBody(Body):
    """The body of POST /v1/responses/compact. Other bodies share its fields, which make up the prompt."""

    model: ModelName
    input: str | ListOf[dict[str, Any]] | None = None
    previous_response_id: ShortText | None = None
    instructions: str | None = None
    prompt_cache_key: ShortText | None = None


class CreateBody(CompactBody):
    """The body of POST /v1/responses, and of the WebSocket's `response.create`.

    `seed` is not part of OpenAI's API. `generate` is used on the WebSocket: if it is False, nothing is
    generated.
    """

    tools: ListOf[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: WholeNumber | None = Field(default=None, ge=1, lt=INT32_LIMIT)
    max_output_tokens: AnswerLimit = None
    temperature: Temperature = None
    top_p: Share = None
    presence_penalty: float | None = Field(default=None, ge=-100, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-100, le=100)
    top_logprobs: WholeNumber | None = Field(default=None, ge=0, le=20)
    seed: WholeNumber | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: ListOf[ShortText] | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], ShortText] | None = Field(
        default=None, max_length=16
    )
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    generate: bool | None = None
    user: ShortText | None = None
    safety_identifier: ShortText | None = None
    service_tier: ShortText | None = None
    conversation: Any = None
    prompt: Any = None

    @property
    def wants_storing(self) -> bool:
        return self.store is not False

    @property
    def is_unlimited(self) -> bool:
        """Return whether the answer may continue until the context is full."""
        return self.max_output_tokens in (None, INT32_LIMIT - 1)

    @property
    def end_user(self) -> str | None:
        """Return the end user that the body names, if any. Each end user counts as a separate client for
        fairness.
        """
        return self.safety_identifier or self.user

    def includes(self, what: str) -> bool:
        return what in (self.include or ())

    @property
    def logprobs(self) -> int | None:
        """Return how many alternatives to report with each token; None if no log probabilities are wanted."""
        return (self.top_logprobs or 0) if self.includes(LOGPROBS) or self.top_logprobs else None

    @property
    def most_calls(self) -> int | None:
        """Return how many functions one answer may call; None for any number."""
        return 1 if self.parallel_tool_calls is False else self.max_tool_calls

    def sampling(self, drawn_seed: int) -> Sampling:
        return make_sampling(
            drawn_seed,
            seed=self.seed,
            temperature=self.temperature,
            top_p=self.top_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
        )

    def answer_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema that the answer must match; None if it may be any text. Raises BadRequest if
        the format `json_schema` has no schema.
        """
        wanted = self.text.format if self.text else None
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_object":
            return dict(ANY_OBJECT)
        if wanted.json_schema is None:
            raise BadRequest("invalid_request", "text.format.schema: is missing", param="text.format.schema")
        return wanted.json_schema

    def template_variables(self) -> dict[str, Any] | None:
        """Return additional variables for the chat template, besides messages and tools; None if there are
        none.
        """
        effort = self.reasoning.effort if self.reasoning else None
        return None if effort in (None, "none") else {"reasoning_effort": effort}

    @property
    def thinks(self) -> bool | None:
        """Return False if the client switches thinking off; else None, which leaves the decision to the
        model's template.
        """
        return False if self.reasoning and self.reasoning.effort == "none" else None

    def check(self) -> None:
        """Raise BadRequest if the input is missing, or if the body has an unsupported field or combination
        that would change the meaning of the answer.
        """
        if self.conversation is not None:
            not_supported(
                "conversation", "there are no conversation objects here; continue with previous_response_id"
            )
        if self.prompt is not None:
            not_supported("prompt", "there are no stored prompts here; send instructions and input")
        if self.background and not self.wants_storing:
            message = "background: needs `store: true`, because its answer is asked for later"
            raise BadRequest("invalid_request", message, param="background")
        if self.input is None and not self.previous_response_id:
            raise BadRequest("invalid_request", "input: is missing", param="input")
