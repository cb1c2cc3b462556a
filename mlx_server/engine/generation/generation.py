"""The state of one answer, from its first token to its end: which events each token causes, and when the
answer ends. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mlx_server.engine.generation.detokenizer import Detokenizer
from mlx_server.engine.generation.output_parser import (
    AnswerParser,
    OutputMarkers,
    OutputParser,
    OutputPiece,
)
from mlx_server.protocol import Done, Event, Logprobs, PromptReport, Token, Usage


@dataclass
class Generation:
    """The state of one answer while it is generated.

    `prompt` does not contain the tokens of the answer that an earlier engine sent; the caller passes these to
    `replay`. `limit_tokens` limits the whole answer, including those tokens. `top_logprobs` is the number of
    alternatives to each token whose log-probabilities are reported; None reports no log-probabilities.
    `cached_tokens` is how many tokens were found in the prompt cache. `shared_prefix_tokens` is how many
    tokens at the start of the prompt may also start other prompts: in a chat, those before the last message;
    0 if that number is unknown or the prompt cache does not use it. If the same token occurs more than
    `max_repeated_tokens` times in a row, the answer ends as if it had reached its limit; 0 allows any number
    of repetitions. With `returns_context`, `Done` holds all tokens of prompt and answer. `report` holds the
    prompt's token ids and text, which `Done` returns to the client; None if the client did not ask for them.
    `load_s` is the number of seconds that the request waited until its model was loaded. `started_s`,
    `first_token_s` and the parameter `now` of the methods are times in seconds on the caller's clock.
    """

    id: str
    prompt: Sequence[int]
    limit_tokens: int
    end_tokens: frozenset[int]
    detokenizer: Detokenizer
    started_s: float
    load_s: float = 0.0
    parser: AnswerParser = field(default_factory=lambda: OutputParser(OutputMarkers()))
    top_logprobs: int | None = None
    max_repeated_tokens: int = 0
    returns_context: bool = False
    report: PromptReport | None = None
    completion_tokens: int = 0
    cached_tokens: int = 0
    shared_prefix_tokens: int = 0
    first_token_s: float | None = None
    reasoning_tokens: int = field(default=0, init=False)
    done: Done | None = field(default=None, init=False)
    _answer: list[int] = field(default_factory=list, init=False)
    _equal_tokens: int = field(default=0, init=False)  # at the end of the answer, in a row

    @property
    def repeats_itself(self) -> bool:
        """Return whether the answer ends with more than `max_repeated_tokens` equal tokens."""
        return 0 < self.max_repeated_tokens < self._equal_tokens

    def replay(self, emitted: Sequence[int], now: float) -> Done | None:
        """Add `emitted`, the tokens that an earlier engine has already sent to the client, to the answer. The
        client gets no further events for these tokens.

        Return `Done` if these tokens complete the answer; else None.
        """
        for token in emitted:
            self._process(token)
            if self.detokenizer.stopped:
                return self.finish("stop", now)
        # With a limit of 0 the prompt is still computed, because clients fill the prompt cache in this way.
        is_complete = self._is_at_its_limit and self.limit_tokens > 0
        return self.finish("length", now) if is_complete else None

    def accept(self, token: int, now: float, logprobs: Logprobs | None = None) -> list[Event]:
        """Return the events that the sampled `token` causes. If the token ends the answer, the last event is
        `Done`.
        """
        if self.first_token_s is None:
            self.first_token_s = now
        if self.limit_tokens == 0:
            return [self.finish("length", now)]
        if token in self.end_tokens:
            self._answer.append(token)
            return [self.finish("stop", now)]
        index = self.completion_tokens
        piece = self._process(token)
        thinking, calls = piece.thinking or None, piece.tool_calls or None
        prompt_tokens = len(self.prompt) if index == 0 else None
        events: list[Event] = [
            Token(self.id, token, piece.text, index, thinking, calls, logprobs, prompt_tokens)
        ]
        if self.detokenizer.stopped:
            events.append(self.finish("stop", now))
        elif self._is_at_its_limit:
            events.append(self.finish("length", now))
        return events

    def cancel(self, now: float) -> Done:
        """End the answer early, and return its last event. Withheld text is dropped, because nobody
        reads it.
        """
        self.done = Done(self.id, "cancelled", self._usage(now))
        return self.done

    def finish(self, reason: Literal["stop", "length"], now: float) -> Done:
        """End the answer, and return its last event, with the text that was withheld, for example because it
        might begin a stop string. If that text completes a stop string, it is cut before the stop string.

        `reason` is "length" if the answer has reached its limit, else "stop". The event's reason is also
        "stop" if the text contained a stop string, and "tool_calls" in place of "stop" if the answer contains
        tool calls.
        """
        piece = self.parser.push(self.detokenizer.flush()) + self.parser.flush()
        done_reason: Literal["stop", "length", "tool_calls"] = "length"
        if self.detokenizer.stopped or reason == "stop":
            done_reason = "tool_calls" if self.parser.has_tool_calls else "stop"
        usage = self._usage(now)
        thinking, calls = piece.thinking or None, piece.tool_calls or None
        stopped_by = self.detokenizer.stopped_by
        context = (*self.prompt, *self._answer) if self.returns_context else None
        self.done = Done(
            self.id, done_reason, usage, piece.text, thinking, calls, stopped_by, context, self.report
        )
        return self.done

    @property
    def _is_at_its_limit(self) -> bool:
        return self.completion_tokens >= self.limit_tokens or self.repeats_itself

    def _process(self, token: int) -> OutputPiece:
        self.completion_tokens += 1
        self._equal_tokens = self._equal_tokens + 1 if self._answer[-1:] == [token] else 1
        self._answer.append(token)
        if token in self.parser.control_tokens:  # such a token separates parts of the answer, and is no text
            piece = self.parser.push(self.detokenizer.flush())
            if not self.detokenizer.stopped:
                piece += self.parser.push_control(token)
        else:
            piece = self.parser.push(self.detokenizer.push(token))
        self.reasoning_tokens += self.parser.is_thinking or bool(piece.thinking)
        return piece

    def _usage(self, now: float) -> Usage:
        first = now if self.first_token_s is None else self.first_token_s
        return Usage(
            prompt_tokens=len(self.prompt),
            completion_tokens=self.completion_tokens,
            load_s=self.load_s,
            prefill_s=max(first - self.started_s, 0.0),
            decode_s=max(now - first, 0.0),
            cached_tokens=min(self.cached_tokens, len(self.prompt)),
            reasoning_tokens=self.reasoning_tokens,
        )
