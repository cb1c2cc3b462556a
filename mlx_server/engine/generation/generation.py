"""One generation from its first token to its end: what to send for each token, and when to stop. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mlx_server.engine.generation.detokenizer import Detokenizer
from mlx_server.engine.generation.output_parser import Marks, OutputParser, OutputPiece
from mlx_server.protocol import Done, Event, Logprobs, Token, Usage


@dataclass
class Generation:
    """`prompt` excludes what was emitted before a resume; `limit_tokens` bounds the whole answer.

    Times are in seconds on the caller's clock.
    """

    id: str
    prompt: Sequence[int]
    limit_tokens: int
    end_tokens: frozenset[int]
    text: Detokenizer
    started_s: float
    load_s: float = 0.0
    reader: OutputParser = field(default_factory=lambda: OutputParser(Marks()))
    top_logprobs: int | None = None
    count: int = 0
    cached: int = 0  # tokens that did not have to be computed
    shared: int = 0  # tokens of the prompt that others may begin with too, where that is worth knowing
    first_token_s: float | None = None
    done: Done | None = field(default=None, init=False)

    def replay(self, emitted: Sequence[int], now: float) -> Done | None:
        """Take up `emitted`, sent in an earlier life, in silence; `Done` where they complete the answer."""
        for token in emitted:
            self._take(token)
            if self.text.stopped:
                return self.finish("stop", now)
        return self.finish("length", now) if self.count >= self.limit_tokens else None

    def accept(self, token: int, now: float, chances: Logprobs | None = None) -> list[Event]:
        """The events that the sampled `token` causes; the last is `Done` where it ends the answer."""
        if self.first_token_s is None:
            self.first_token_s = now
        if token in self.end_tokens:
            return [self.finish("stop", now)]
        index = self.count
        piece = self._take(token)
        thinking, calls = piece.thinking or None, piece.tool_calls or None
        prompt_tokens = len(self.prompt) if index == 0 else None
        released = Token(self.id, token, piece.text, index, thinking, calls, chances, prompt_tokens)
        events: list[Event] = [released]
        if self.text.stopped:
            events.append(self.finish("stop", now))
        elif self.count >= self.limit_tokens:
            events.append(self.finish("length", now))
        return events

    def cancel(self, now: float) -> Done:
        """End it early; what was held back is dropped, nobody reads it."""
        self.done = Done(self.id, "cancelled", self._usage(now))
        return self.done

    def finish(self, reason: str, now: float) -> Done:
        """End it, releasing held text. A stop string that only the held text completes counts."""
        piece = self.reader.push(self.text.flush()) + self.reader.flush()
        ended: Literal["stop", "length", "tool_calls"] = "length"
        if self.text.stopped or reason == "stop":
            ended = "tool_calls" if self.reader.called else "stop"
        usage = self._usage(now)
        thinking, calls = piece.thinking or None, piece.tool_calls or None
        self.done = Done(self.id, ended, usage, piece.text, thinking, calls, self.text.stopped_by)
        return self.done

    def _take(self, token: int) -> OutputPiece:
        self.count += 1
        return self.reader.push(self.text.push(token))

    def _usage(self, now: float) -> Usage:
        first = now if self.first_token_s is None else self.first_token_s
        return Usage(
            prompt_tokens=len(self.prompt),
            completion_tokens=self.count,
            load_s=self.load_s,
            prefill_s=max(first - self.started_s, 0.0),
            decode_s=max(now - first, 0.0),
            cached_tokens=min(self.cached, len(self.prompt)),
        )
