"""The fields that chat completions and completions have in common. Pure. The defaults are OpenAI's own."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mlx_server.gateway.dialects.bodies import Body, ModelName, Stops, WholeNumber
from mlx_server.gateway.dialects.chat.tool_choice import CallRules
from mlx_server.gateway.dialects.sampling_fields import (
    AnswerLimit,
    RepeatPenalty,
    Share,
    Temperature,
    TopK,
    make_sampling,
)
from mlx_server.gateway.errors import BadRequest, quoted
from mlx_server.gateway.images.reader import ImageReader
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.protocol import Sampling

MAX_BIASED_TOKENS = 1024
MAX_BIAS = 100.0


class StreamOptions(Body):
    include_usage: bool | None = None


class TextBody(Body):
    model: ModelName
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature = None
    top_p: Share = None
    max_tokens: AnswerLimit = None
    stop: Stops = None
    seed: WholeNumber | None = None
    n: WholeNumber | None = Field(default=None, ge=1, le=128)
    presence_penalty: float | None = Field(default=None, ge=-100, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-100, le=100)
    logit_bias: dict[str, float] | None = Field(default=None, max_length=MAX_BIASED_TOKENS)
    user: str | None = None
    # not OpenAI's own, but other local servers have them
    top_k: TopK = None
    min_p: Share = None
    repetition_penalty: RepeatPenalty = None

    @property
    def include_usage(self) -> bool:
        """Return whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, drawn_seed: int) -> Sampling:
        """Return the sampling settings. `drawn_seed` is the seed if the body's `seed` is missing or -1.
        Raises BadRequest if `logit_bias` has a key that is not a token id, or a value out of range.
        """
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
            logit_bias=logit_bias(self.logit_bias or {}),
        )

    @property
    def stop_strings(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    def echo_of(self, request: GenerationRequest) -> str:
        """Return the text that the gateway writes before the answer to `request`: the prompt if the client
        wants an `echo`, else an empty string. The string is also empty if `request` asks the engine to report
        the prompt, as for an echo of token ids or with log probabilities: the echo is then made from the
        engine's report. Raises BadRequest if a prompt of token ids is to be echoed in a stream, because the
        gateway does not know their text.
        """
        return ""

    @property
    def answer_count(self) -> int:
        """Return how many answers the body asks for: `n` for each prompt."""
        return self.n or 1

    @property
    def call_rules(self) -> CallRules:
        """Return the rules for the tool calls of an answer. Raises BadRequest if a tool or the tool choice is
        wrong.
        """
        return CallRules()

    @property
    def uses_functions(self) -> bool:
        """Return whether the answer's tool calls are written in OpenAI's older form, which goes with
        `functions`.
        """
        return False

    def skipped(self, images: ImageReader) -> dict[str, list[str]]:
        """Return what the client requested and this server skips because it is not supported, for the
        gateway's log: {"tools": the skipped tools, "parts": the types of the skipped content parts}, or an
        empty dict for a body without messages. `images` says which images the model can read.
        """
        return {}


def logit_bias(given: dict[str, Any]) -> tuple[tuple[int, float], ...]:
    """Return pairs (token id, number to add to the token's logit), in the order of the ids. Raises BadRequest
    if a key is not a token id, or a number is not between -100 and 100.

    The ids are those of the model's own tokenizer, which POST /tokenize shows.
    """
    biases: dict[int, float] = {}
    for key, bias in given.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise BadRequest("invalid_request", f"logit_bias: {quoted(key)} is no token id")
        if not -MAX_BIAS <= bias <= MAX_BIAS:
            message = f"logit_bias.{key}: should be between -100 and 100 (given: {bias:g})"
            raise BadRequest("invalid_request", message)
        biases[int(key)] = float(bias)
    return tuple(sorted(biases.items()))
