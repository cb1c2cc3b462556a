"""The parts in which an answer arrives, independent of any dialect. Pure.

An engine sends tokens; a dialect renders parts: text, thoughts, tool calls, log probabilities, and the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from mlx_server import protocol
from mlx_server.gateway.requests.ticket import TicketEvent

LEAST_LOGPROB = -9999.0
"""The log probability that OpenAI reports for a token that cannot be sampled, such as one that a grammar
excludes. The true value, the logarithm of 0, cannot be written in JSON."""


class AnswerToolCall(msgspec.Struct, frozen=True):
    """A tool call that the model made. `index` is the call's number within the answer, from 0. `custom_input`
    is the input text of a custom tool; None for a function.
    """

    id: str
    index: int
    name: str
    arguments: dict
    custom_input: str | None = None


class AnswerPart(msgspec.Struct, frozen=True):  # one for each token: a dataclass takes 0.7 µs more to make
    """The content that one event added to an answer, or that all events of the answer added.

    `text` contains neither `thinking` nor `tool_calls`. `logprobs` belong to the tokens of `text`. `done` is
    the event that ended the answer, in the answer's last part; None in every other part.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[AnswerToolCall, ...] = ()
    logprobs: tuple[protocol.Logprobs, ...] = ()
    done: protocol.Done | None = None

    @property
    def has_content(self) -> bool:
        """Return whether the part adds text, thoughts or tool calls."""
        return bool(self.text or self.thinking or self.tool_calls)


class AnswerAssembler:
    """Converts the events of one request to `AnswerPart`s.

    If the engine holds back the text of a token (an incomplete character, or the possible start of a stop
    string), the token's part has no content. The token's log probabilities are added to the later part that
    has the text.
    """

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._tool_calls = 0
        self._logprobs: tuple[protocol.Logprobs, ...] = ()

    def part_of(self, event: TicketEvent) -> AnswerPart:
        """Return the part that `event`, a token or the end of the answer, adds."""
        assert isinstance(event, protocol.Token | protocol.Done)
        if isinstance(event, protocol.Token) and event.logprobs:
            self._logprobs = (*self._logprobs, _with_finite_numbers(event.logprobs))
        part = AnswerPart(
            event.text,
            event.thinking or "",
            tuple(map(self._numbered, event.tool_calls)) if event.tool_calls else (),
            self._logprobs,
            event if isinstance(event, protocol.Done) else None,
        )
        if part.has_content or part.done:
            self._logprobs = ()
        return part

    def _numbered(self, call: protocol.ToolCall) -> AnswerToolCall:
        index, self._tool_calls = self._tool_calls, self._tool_calls + 1
        return AnswerToolCall(f"call_{self._request_id}_{index}", index, call.name, call.arguments)


def _with_finite_numbers(logprobs: protocol.Logprobs) -> protocol.Logprobs:
    if all(math.isfinite(token.logprob) for token in (logprobs.drawn, *logprobs.top)):
        return logprobs
    return protocol.Logprobs(_finite(logprobs.drawn), tuple(map(_finite, logprobs.top)))


def _finite(token: protocol.TokenLogprob) -> protocol.TokenLogprob:
    if math.isfinite(token.logprob):
        return token
    return msgspec.structs.replace(token, logprob=LEAST_LOGPROB)


def joined(parts: Sequence[AnswerPart]) -> AnswerPart:
    """Return all parts of one answer as one part. The last of `parts` must be the end of the answer."""
    return AnswerPart(
        "".join(part.text for part in parts),
        "".join(part.thinking for part in parts),
        tuple(call for part in parts for call in part.tool_calls),
        # The text lacks the tokens of a matched stop string, and so their log probabilities are left out too.
        tuple(logprobs for part in parts if part.has_content for logprobs in part.logprobs),
        parts[-1].done,
    )
