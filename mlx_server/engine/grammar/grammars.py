"""Grammars of one model, by llguidance: a JSON schema becomes a logits processor of one request.

The processor's state is a function of the answer's tokens alone. A resumed request replays them, and goes on
under the same constraint.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from typing import Any, cast

import mlx.core as mx
import numpy as np

from mlx_server.engine.errors import RequestError
from mlx_server.engine.grammar.constraint import Constraint
from mlx_server.engine.grammar.json_schema import closed

_WHITESPACE = r"( ?|\n[ \t]{0,20})"
"""Between two tokens of JSON: a space, or a new line and its indentation. Where more is allowed, small models
write blank lines until their tokens are spent."""

_OPTIONS: Any = {"whitespace_pattern": _WHITESPACE, "coerce_one_of": True}

SCHEMA_CHARS = 64 * 1024
"""1,800 properties (52,000) took 0.2 s and 24 MB. Other streams go on meanwhile, other grammars wait."""

_ROW_ITEMS, _STEP_ITEMS = 20_000, 500_000
"""llguidance's own limits end the answer at an object of more than 500 optional properties; these hold for
all that SCHEMA_CHARS lets through, at 20 ms a token for 1,500 of them."""

CACHED, CACHED_CHARS = 16, 2 * SCHEMA_CHARS
"""A model's compiled grammars that are kept: so many, of schemas of so many characters together."""


class Grammars:
    """Compiles schemas for the vocabulary of `tokenizer` (transformers' own, fast).

    All but `ready` and `token_bytes` is for the compiler's thread alone; those two are for the MLX thread.
    """

    def __init__(self, tokenizer: Any, end_tokens: frozenset[int]) -> None:
        self._tokenizer, self._end_tokens = tokenizer, end_tokens
        self._vocabulary: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()  # by schema; the last used is last

    @property
    def ready(self) -> bool:
        """Whether `token_bytes` can answer."""
        return self._vocabulary is not None

    def token_bytes(self, token: int) -> bytes:
        """The text of one token, which may be a part of a character only."""
        return bytes(self._vocabulary.decode_bytes([token]))

    def prepare(self) -> None:
        """Read the vocabulary: once, some 0.4 s and 25 MB for 49,000 tokens. Raises RequestError."""
        if self._vocabulary is None:
            try:
                self._vocabulary = _vocabulary(self._tokenizer, sorted(self._end_tokens))
            except Exception as error:  # a tokenizer that llguidance cannot read raises what it likes
                raise RequestError(
                    "invalid_request", f"This model's tokenizer cannot be held to a grammar: {error}"
                ) from error

    def processor(
        self, schema: dict[str, Any], emitted: Sequence[int], wake_after: Sequence[int] = ()
    ) -> GrammarProcessor:
        """For an answer that has `emitted` already. Raises RequestError for a schema that cannot be used."""
        self.prepare()
        constraint = Constraint(self._matcher(schema), self._end_tokens, wake_after)
        for token in emitted:
            constraint.advance(token)
        return GrammarProcessor(constraint, self._end_tokens)

    def _matcher(self, schema: dict[str, Any]) -> Any:
        """A matcher at the start of its grammar: a copy of the one that is kept."""
        try:
            text = json.dumps(closed(schema))
        except (ValueError, RecursionError) as error:
            raise _unusable(str(error)) from error
        matcher = self._compiled.pop(text, None) or self._compile(text)
        self._compiled[text] = matcher
        while len(self._compiled) > CACHED or sum(map(len, self._compiled)) > CACHED_CHARS:
            self._compiled.popitem(last=False)
        return matcher.deep_copy()

    def _compile(self, text: str) -> Any:
        from llguidance import LLMatcher, LLParserLimits

        if len(text) > SCHEMA_CHARS:
            raise _unusable(f"it has {len(text)} characters, and the limit is {SCHEMA_CHARS}")
        try:
            grammar = LLMatcher.grammar_from_json_schema(text, overrides=_OPTIONS)
        except (ValueError, RecursionError) as error:
            raise _unusable(str(error)) from error
        limits = LLParserLimits(max_items_in_row=_ROW_ITEMS, step_max_items=_STEP_ITEMS)
        matcher = LLMatcher(self._vocabulary, grammar, limits=limits)
        if fault := matcher.get_error():
            raise _unusable(fault)
        return matcher


def _vocabulary(tokenizer: Any, end_tokens: list[int]) -> Any:
    """As `llguidance.hf.from_tokenizer` makes it, but in pieces: each holds all threads up while it lasts."""
    from llguidance import LLTokenizer

    backend = tokenizer.backend_tokenizer
    if backend.padding or backend.truncation:
        backend = copy(backend)  # takes as long as all the rest
        backend.no_padding()
        backend.no_truncation()
    bare = LLTokenizer(backend.to_str(), eos_token=end_tokens, slices=[])
    return bare.with_slices(LLTokenizer.general_slices())


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
