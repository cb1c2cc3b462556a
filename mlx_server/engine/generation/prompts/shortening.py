"""Shorten a prompt that is longer than its context. Pure.

A chat loses its oldest turns, but keeps its system messages and its last message. A text loses its oldest
tokens. How much is dropped depends on the request alone, so that an engine that resumes an answer makes the
same prompt. As far as possible, a conversation's requests are cut at the same place as its earlier requests,
so that the prompt cache has the keys and values of the remaining tokens. If each request dropped only as much
as necessary, each prompt would begin with different tokens, and would have to be computed completely.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from msgspec.structs import replace

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.length_check import CHUNK_CHARS
from mlx_server.engine.prompt_cache.block import common_prefix_length
from mlx_server.engine.vision.pictures import is_image
from mlx_server.protocol import Generate

Message = dict[str, Any]
ANSWER_SHARE = 8
"""A shortened prompt leaves (context / ANSWER_SHARE) tokens for an answer that has no limit of its own."""
STEP_SHARE = 8
"""Tokens of a text are dropped in steps of (longest possible prompt / STEP_SHARE) tokens."""
BYTES_STEP_SHARE = 2
"""Turns are dropped in steps of (longest possible prompt in tokens / BYTES_STEP_SHARE) bytes: about an eighth
of the prompt in English, and more in other scripts."""


@dataclass(frozen=True)
class Shortener:
    """Shortens prompts that do not fit into the context: a chat loses its oldest turns, a text its oldest
    tokens. The context has `model_context_tokens` tokens, or fewer if the request says so. `tokens_of`
    returns the tokens of a request's prompt, and `count` the number of tokens of a text.
    """

    tokens_of: Callable[[Generate], list[int]]
    count: Callable[[str], int]
    model_context_tokens: int

    def fitting(self, op: Generate) -> tuple[Generate, list[int]]:
        """Return the request, shortened so that its prompt fits into its context, and the tokens of the
        prompt.

        The prompt still does not fit if `op` does not allow shortening, or if the part that must remain is
        too long. Raises RequestError if the prompt cannot be rendered and tokenized, or is far longer than
        the model's context.
        """
        if op.count_only or not op.truncate:
            return op, self.tokens_of(op)
        context = min(op.context_tokens or self.model_context_tokens, self.model_context_tokens)
        most = max(context - _room_for_answer(op, context), 1)
        whole = _Attempt.make(self.tokens_of, op)
        if whole.length <= most:
            return whole.result()
        if op.kind == "chat" and not op.shortens_text:
            shorter = self._without_oldest_turns(whole, most)
            return (shorter if shorter.length <= most or whole.length >= context else whole).result()
        if whole.length < context or not op.shift:
            return whole.result()
        return self._without_oldest_tokens(op, most).result()

    # --- chats ---

    def _without_oldest_turns(self, whole: _Attempt, most: int) -> _Attempt:
        """Return the chat of `whole`, the attempt with the complete chat, without its oldest turns, so that
        at most `most` tokens remain. If no cut is large enough, return the shortest chat. The number of
        attempts is logarithmic in the number of possible cuts.
        """
        op, messages = whole.op, whole.op.messages or ()
        cuts = _cuts(messages, max(most // BYTES_STEP_SHARE, 1))
        earliest = self._earliest_that_may_fit(messages, most)
        possible = [cut for cut in cuts if cut.start >= earliest] or cuts[-1:]
        if not possible:
            return whole
        attempts: dict[int, _Attempt] = {}

        def fits(cut: _Cut) -> bool:
            if cut.start not in attempts:
                shorter = replace(op, messages=cut.kept(messages))
                attempts[cut.start] = _Attempt.make(self.tokens_of, shorter)
            return attempts[cut.start].length <= most

        steps = [cut for cut in possible if cut.is_step]
        chosen = _first(steps, fits)
        if chosen is None:  # only the end of the conversation fits: keep as much of it as possible
            after = steps[-1].start if steps else -1
            rest = [cut for cut in possible if cut.start > after]
            chosen = _first(rest, fits) or possible[-1]
        fits(chosen)
        return attempts[chosen.start]

    def _earliest_that_may_fit(self, messages: Sequence[Message], most: int) -> int:
        """Return the smallest `i` for which the texts of `messages[i:]` have at most `most` tokens together.
        The tokens that the template adds are not counted. If the last message has more, return len(messages).
        """
        left = most
        for number in range(len(messages) - 1, -1, -1):
            left -= self._count_up_to(_text_of(messages[number]), left)
            if left < 0:
                return number + 1
        return 0

    def _count_up_to(self, text: str, limit: int) -> int:
        """Return the number of tokens of `text`. A result above `limit` is only a lower bound, since counting
        stops there.
        """
        total = 0
        for start in range(0, len(text), CHUNK_CHARS):
            total += self.count(text[start : start + CHUNK_CHARS])
            if total > limit:
                break
        return total

    # --- texts, and the prompts of /api/generate ---

    def _without_oldest_tokens(self, op: Generate, most: int) -> _Attempt:
        """Return the request without its oldest tokens, so that at most `most` tokens come before the answer.
        First, the tokens of earlier turns (`context_ids`), which precede the prompt's text, are dropped, then
        the beginning of the text.
        """
        own = _Attempt.make(self.tokens_of, replace(op, context_ids=()))
        if op.context_ids and own.length < most and own.tokens is not None:
            kept = _without_first(op.context_ids, len(op.context_ids) + own.length - most, most)
            return _Attempt.make(self.tokens_of, replace(op, context_ids=tuple(kept)))
        if own.length <= most:
            return own
        if op.prompt_ids is not None:
            ids = _without_first(op.prompt_ids, len(op.prompt_ids) - most, most)
            return _Attempt.make(self.tokens_of, replace(op, context_ids=(), prompt_ids=tuple(ids)))
        op = _with_text(replace(op, context_ids=()), self._end_of(_last_text(op), most))
        own = _Attempt.make(self.tokens_of, op)
        if own.length <= most or own.tokens is None:
            return own
        # Keep the parts of the prompt before and after the text, which do not depend on the text.
        one, other = (self.tokens_of(_with_text(op, text)) for text in ("a", "b"))
        before = common_prefix_length(one, other)
        after = common_prefix_length(one[before:][::-1], other[before:][::-1])
        text = own.tokens[before : own.length - after]
        kept = _without_first(text, min(own.length - most, len(text)), most)
        return _Attempt(op, [*own.tokens[:before], *kept, *own.tokens[own.length - after :]])

    def _end_of(self, text: str, most: int) -> str:
        """Return the end of a very long text, about `most` tokens of it, so that the rest need not be
        tokenized. A text of up to CHUNK_CHARS characters is returned whole.
        """
        if len(text) <= CHUNK_CHARS:
            return text
        chars_per_token = CHUNK_CHARS / max(self.count(text[-CHUNK_CHARS:]), 1)
        return text[-max(int(most * chars_per_token * 0.95), 1) :]


@dataclass(frozen=True)
class _Attempt:
    """A request, whole or shortened, and the tokens of its prompt, whose number shows whether the prompt
    fits.

    If the prompt was refused as too long, `tokens` is None, and `error` is the refusal.
    """

    op: Generate
    tokens: list[int] | None
    error: RequestError | None = None

    @classmethod
    def make(cls, tokens_of: Callable[[Generate], list[int]], op: Generate) -> _Attempt:
        """Return the attempt for `op`, with the tokens that `tokens_of` makes of its prompt. If `tokens_of`
        refuses the prompt as too long (RequestError `context_exceeded`), the attempt has that error and no
        tokens. Any other RequestError is raised.
        """
        try:
            return cls(op, tokens_of(op))
        except RequestError as error:
            if error.code != "context_exceeded":
                raise
            return cls(op, None, error)

    @property
    def length(self) -> int:
        return sys.maxsize if self.tokens is None else len(self.tokens)

    def result(self) -> tuple[Generate, list[int]]:
        """Return the request and its tokens. Raises RequestError (`context_exceeded`) if the prompt was
        refused as too long.
        """
        if self.tokens is None:
            assert self.error is not None
            raise self.error
        return self.op, self.tokens


@dataclass(frozen=True)
class _Cut:
    """A place where a chat can be cut: the messages before `start` are dropped, except system messages and
    those in `lead`.

    A cut within the last turn keeps the user's request that began the turn: `lead` is the range (first, end)
    of its messages. For other cuts, `lead` is empty. `is_step` marks the first cut after each multiple of a
    number of bytes of text (`step_bytes` of `_cuts`). Marked cuts are preferred, so that several requests of
    a conversation are cut at the same place.
    """

    start: int
    lead: tuple[int, int] = (0, 0)
    is_step: bool = False

    def kept(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        first, end = self.lead
        before, after = (filter(_is_system, part) for part in (messages[:first], messages[end : self.start]))
        return (*before, *messages[first:end], *after, *messages[self.start :])


def _cuts(messages: Sequence[Message], step_bytes: int) -> list[_Cut]:
    """Return the places where a chat can be cut, in order: before each turn except the first turn, then
    before each assistant message in the last turn except its first one. The first cut after each multiple of
    `step_bytes` bytes of text is marked as preferred (`is_step`).

    A turn begins with a user message. The last turn may be an agent's long work. A cut within it keeps its
    user message, and drops tool calls together with their results.
    """
    turns = [number for number, message in enumerate(messages) if message.get("role") == "user"]
    last_turn = turns[-1] if turns else 0
    answers = [n for n in range(last_turn, len(messages)) if messages[n].get("role") == "assistant"]
    lead = (last_turn, answers[0]) if answers else (0, 0)
    places = [(start, (0, 0)) for start in turns[1:]] + [(start, lead) for start in answers[1:]]
    ends = [0, *accumulate(len(_text_of(message).encode("utf-8", "replace")) for message in messages)]
    cuts, steps_before = [], 0
    for start, leading in places:
        steps = ends[start] // step_bytes
        cuts.append(_Cut(start, leading, steps > steps_before))
        steps_before = steps
    return cuts


def _first(cuts: Sequence[_Cut], fits: Callable[[_Cut], bool]) -> _Cut | None:
    """Return the first cut after which the conversation fits, found by binary search; None if there
    is none.
    """
    low, high = 0, len(cuts)
    while low < high:
        middle = low if low == 0 and high == len(cuts) else (low + high) // 2
        if fits(cuts[middle]):
            high = middle
        else:
            low = middle + 1
    return cuts[low] if low < len(cuts) else None


def _room_for_answer(op: Generate, context_tokens: int) -> int:
    """Return the minimum number of the context's tokens that a shortened prompt leaves for the answer."""
    if not op.shift:
        return 1
    share = max(context_tokens // ANSWER_SHARE, 1)
    return share if op.max_tokens is None or op.max_tokens < 0 else max(min(op.max_tokens, share), 1)


def _without_first(ids: Sequence[int], excess: int, most: int) -> list[int]:
    """Drop at least `excess` ids from the beginning of `ids`, and return the rest. `excess` is rounded up to
    a multiple of (`most` / STEP_SHARE), so that later, longer prompts are cut at the same place; if no id
    would remain, exactly `excess` are dropped. `most` is the length of the longest possible prompt in tokens.
    """
    step = max(most // STEP_SHARE, 1)
    drop = -(-excess // step) * step
    return list(ids[drop if drop < len(ids) else excess :])


def _last_text(op: Generate) -> str:
    if op.kind == "text":
        return op.prompt or ""
    content = (op.messages or ({},))[-1].get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if not is_image(part))
    return content if isinstance(content, str) else ""


def _with_text(op: Generate, text: str) -> Generate:
    if op.kind == "text":
        return replace(op, prompt=text)
    *others, last = op.messages or ({},)
    if isinstance(content := last.get("content"), list):
        images = [part for part in content if is_image(part)]
        return replace(op, messages=(*others, {**last, "content": [*images, {"type": "text", "text": text}]}))
    return replace(op, messages=(*others, {**last, "content": text}))


def _text_of(message: Message) -> str:
    calls = message.get("tool_calls")
    content = message.get("content") or ""
    text = content if isinstance(content, str) else json.dumps(content, default=str)
    return text + (json.dumps(calls, default=str) if calls else "")


def _is_system(message: Message) -> bool:
    return message.get("role") in ("system", "developer")
