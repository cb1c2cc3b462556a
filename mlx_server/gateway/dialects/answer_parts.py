"""The parts that an answer arrives in, free of any dialect. Pure.

An engine sends tokens; a dialect renders parts: text, thoughts, tool calls, log probabilities, and the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from mlx_server import protocol
from mlx_server.gateway.requests.ticket import TicketEvent

LEAST_LOGPROB = -9999.0
"""What OpenAI writes for a token that cannot be drawn, such as one that a grammar excludes: the logarithm of
0 is no JSON number."""


class AnswerToolCall(msgspec.Struct, frozen=True):
    """A function that the model wants called. `index` is its number within the answer, from 0.

    `custom_input` is the text that a custom tool is called with; None for a function.
    """

    id: str
    index: int
    name: str
    arguments: dict
    custom_input: str | None = None


class AnswerPart(msgspec.Struct, frozen=True):  # one for each token: a dataclass takes 0.7 µs more to make
    """The content that one event added to an answer, or that all its events added.

    `thinking` and `tool_calls` are not contained in `text`. `logprobs` belong to the tokens of `text`. `done`
    is None in every part but the last.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[AnswerToolCall, ...] = ()
    logprobs: tuple[protocol.Logprobs, ...] = ()
    done: protocol.Done | None = None

    @property
    def has_content(self) -> bool:
        """Return whether the part adds anything that a client is shown."""
        return bool(self.text or self.thinking or self.tool_calls)


class AnswerAssembler:
    """Converts the events of one request to `AnswerPart`s.

    A token whose text the engine holds back (an incomplete character, the possible start of a stop string)
    makes a part without content; its log probabilities come with the part that has the text.
    """

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._tool_calls = 0
        self._logprobs: tuple[protocol.Logprobs, ...] = ()

    def part_of(self, event: TicketEvent) -> AnswerPart:
        """Return the part that `event`, a token or the end, adds."""
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
    """Return all parts of one answer as one; the last of them must be the end."""
    return AnswerPart(
        "".join(part.text for part in parts),
        "".join(part.thinking for part in parts),
        tuple(call for part in parts for call in part.tool_calls),
        # Tokens that a stop string took back are not in the text, and neither are their log probabilities.
        tuple(logprobs for part in parts if part.has_content for logprobs in part.logprobs),
        parts[-1].done,
    )
