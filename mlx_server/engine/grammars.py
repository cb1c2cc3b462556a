"""Grammars of one model, by llguidance: a JSON schema becomes a logits processor of one request.

The processor's state is a function of the answer's tokens alone. A resumed request replays them, and goes on
under the same constraint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import mlx.core as mx
import numpy as np

from mlx_server.engine.constraint import Constraint
from mlx_server.engine.errors import RequestError
from mlx_server.engine.json_schema import closed

_WHITESPACE = r"[ \n\t]{0,20}"
"""Between two tokens of JSON. Without a bound, small models write blank lines to the end of the context."""

_OPTIONS: Any = {"whitespace_pattern": _WHITESPACE, "coerce_one_of": True}

SCHEMA_CHARS = 64 * 1024
"""Compiling holds up all streams: 5,000 properties (144,000) took 5.4 s, 1,800 (51,000) took 1.3 s."""


class Grammars:
    """Compiles schemas for the vocabulary of `tokenizer` (transformers' own, fast)."""

    def __init__(self, tokenizer: Any, end_tokens: frozenset[int]) -> None:
        self._tokenizer, self._end_tokens = tokenizer, end_tokens

    def processor(
        self, schema: dict[str, Any], emitted: Sequence[int], wake_after: Sequence[int] = ()
    ) -> GrammarProcessor:
        """For an answer that has `emitted` already. Raises RequestError for a schema that cannot be used."""
        from llguidance import LLMatcher

        try:
            text = json.dumps(closed(schema))
            if len(text) > SCHEMA_CHARS:
                raise _unusable(f"it has {len(text)} characters, and the limit is {SCHEMA_CHARS}")
            grammar = LLMatcher.grammar_from_json_schema(text, overrides=_OPTIONS)
            fault = LLMatcher.validate_grammar(grammar, self._vocabulary)
        except (ValueError, RecursionError) as error:
            fault = str(error)
        if fault:
            raise _unusable(fault)
        constraint = Constraint(LLMatcher(self._vocabulary, grammar), self._end_tokens, wake_after)
        for token in emitted:
            constraint.advance(token)
        return GrammarProcessor(constraint, self._end_tokens)

    def token_bytes(self, token: int) -> bytes:
        """The text of one token, which may be a part of a character only."""
        return bytes(self._vocabulary.decode_bytes([token]))

    @cached_property
    def _vocabulary(self) -> Any:
        """Made when it is first needed: half a second for 49,000 tokens."""
        from llguidance.hf import from_tokenizer

        try:
            return from_tokenizer(self._tokenizer, eos_token=sorted(self._end_tokens))
        except Exception as error:  # a tokenizer that llguidance cannot read raises what it likes
            raise RequestError(
                "invalid_request", f"This model's tokenizer cannot be held to a grammar: {error}"
            ) from error


class GrammarProcessor:
    """A logits processor for BatchGenerator, called once for each token to come, in order."""

    def __init__(self, constraint: Constraint, end_tokens: frozenset[int]) -> None:
        self._constraint, self._end_tokens = constraint, end_tokens
        self._begun = False

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        if self._begun:  # before the first, all that was emitted has been replayed
            self._constraint.advance(cast(int, tokens[-1].item()))
        self._begun = True
        allowed = self._constraint.allowed()
        if allowed is not None:
            return mx.where(_unpack(allowed, logits.shape[-1]), logits, -mx.inf)
        return self._only_end(logits) if self._constraint.over else logits

    def _only_end(self, logits: mx.array) -> mx.array:
        ends = mx.zeros((logits.shape[-1],), dtype=mx.bool_)
        ends[mx.array(sorted(self._end_tokens))] = True
        return mx.where(ends, logits, -mx.inf)


def _unpack(bitmask: bytes, size: int) -> mx.array:
    """One boolean a token. Plain MLX: llguidance's own kernel is Metal's only. Padding is never allowed."""
    words = mx.array(np.frombuffer(bitmask, dtype=np.uint32))
    bits = ((words[:, None] >> mx.arange(32, dtype=mx.uint32)) & 1).astype(mx.bool_).reshape(-1)[:size]
    missing = size - bits.shape[0]
    return mx.concatenate([bits, mx.zeros((missing,), dtype=mx.bool_)]) if missing else bits


def _unusable(fault: str) -> RequestError:
    reason = " ".join(fault.split())[:300]
    return RequestError("invalid_request", f"The JSON schema cannot be used as a grammar: {reason}")
