"""Compile JSON schemas to grammars for one model, with llguidance, and apply the grammars to logits.

The state of a grammar depends only on the answer's tokens. A resumed request replays these tokens, and
continues under the same constraint.
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
from mlx_server.engine.grammar.answer_or_calls import answer_schema
from mlx_server.engine.grammar.constraint import Constraint, Gate
from mlx_server.engine.grammar.javascript_patterns import from_javascript, patterns
from mlx_server.engine.grammar.json_schema import SchemaAdapter
from mlx_server.engine.grammar.schema_recursion import is_endless
from mlx_server.engine.log import log_event

_WHITESPACE = r"( ?|\n[ \t]{0,20})"
"""The whitespace that is allowed between two tokens of JSON: a space, or a line break and indentation.

If more is allowed, small models write blank lines until they reach max_tokens.
"""

_OPTIONS: Any = {"whitespace_pattern": _WHITESPACE, "coerce_one_of": True, "lenient": True}
"""With `lenient`, llguidance ignores keywords of JSON Schema that it does not implement."""

_PATTERN_MISTAKES = ("unclosed group", "unopened group", "unclosed character class")
_MATCHES_NOTHING = "Regex is empty"
"""Parts of llguidance's error messages for a regular expression that is invalid, or that matches no text."""

MAX_SCHEMA_CHARS = 64 * 1024
"""The most characters of a schema. Compiling one of 52,000 characters (1,800 properties) takes 0.2 s and
24 MB. Requests without a grammar continue meanwhile, but other grammars wait."""

_ROW_ITEMS, _STEP_ITEMS = 20_000, 500_000
"""Limits for llguidance's parser. With its default limits, an answer ends early in an object with over 500
optional properties. These limits suffice for any schema within MAX_SCHEMA_CHARS. With 1,500 optional
properties, each token takes 20 ms."""

MAX_CACHED_GRAMMARS, MAX_CACHED_CHARS = 16, 2 * MAX_SCHEMA_CHARS
"""The limits of a model's cache of compiled grammars: their number, and the total length of their schemas."""


class Grammars:
    """Compiles schemas for the vocabulary of `tokenizer`, a fast tokenizer of transformers.

    The MLX thread may use `has_vocabulary` and `token_bytes`. Only the background thread that compiles
    schemas may call the other methods.
    """

    def __init__(self, tokenizer: Any, end_tokens: frozenset[int]) -> None:
        self._tokenizer, self._end_tokens = tokenizer, end_tokens
        self._vocabulary: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()  # by schema text, the least recently used first

    @classmethod
    def for_checks(cls) -> Grammars:
        """Return Grammars whose vocabulary has a token for each byte. They compile a schema in a millisecond,
        but serve only to find faults in it.
        """
        from llguidance import LLTokenizer

        grammars = cls(None, frozenset())
        grammars._vocabulary = LLTokenizer("byte")
        return grammars

    def check(self, schema: dict[str, Any]) -> None:
        """Raise RequestError if `schema` cannot be used as a grammar."""
        self._matcher(schema)

    @property
    def has_vocabulary(self) -> bool:
        """Return True if the vocabulary has been read, which `token_bytes` needs."""
        return self._vocabulary is not None

    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 bytes of one token, which may be only a part of a character. The vocabulary must
        have been read.
        """
        return bytes(self._vocabulary.decode_bytes([token]))

    def read_vocabulary(self) -> None:
        """Read the vocabulary, unless it has been read. This takes 0.4 s and 25 MB for 49,000 tokens.

        Raises RequestError if llguidance cannot read the vocabulary.
        """
        if self._vocabulary is None:
            try:
                self._vocabulary = _vocabulary(self._tokenizer, sorted(self._end_tokens))
            except Exception as error:  # llguidance may raise any exception for an unknown tokenizer
                raise RequestError(
                    "invalid_request", f"This model's tokenizer cannot be used with a grammar: {error}"
                ) from error

    def make_processor(
        self, schema: dict[str, Any], emitted: Sequence[int], gate: Gate | None = None
    ) -> GrammarProcessor:
        """Return the logits processor that applies the grammar of `schema` to an answer. The answer begins
        with `emitted`, the tokens that an earlier engine has already sent (empty for a new answer).

        With a `gate`, the grammar applies only to the tokens after the gate has opened, for example after the
        model's thinking. Raises RequestError if `schema` cannot be used as a grammar, or the vocabulary
        cannot be read.
        """
        self.read_vocabulary()
        constraint = Constraint(self._matcher(schema), self._end_tokens, gate)
        for token in emitted:
            constraint.advance(token)
        return GrammarProcessor(constraint, self._end_tokens)

    def _matcher(self, schema: dict[str, Any]) -> Any:
        """Return a new matcher of llguidance, which applies the grammar of `schema` to one answer from its
        beginning. It is a copy of the cached matcher for this schema, or of one that is compiled first.
        """
        try:
            text = json.dumps(schema)
        except (ValueError, RecursionError) as error:
            raise _unusable_schema(str(error)) from error
        matcher = self._compiled.pop(text, None) or self._compile(schema, text)
        self._compiled[text] = matcher
        while len(self._compiled) > MAX_CACHED_GRAMMARS or sum(map(len, self._compiled)) > MAX_CACHED_CHARS:
            self._compiled.popitem(last=False)
        return matcher.deep_copy()

    def _compile(self, schema: dict[str, Any], text: str) -> Any:
        """Return a new matcher for `schema`, whose JSON is `text`. Parts of the schema that a grammar cannot
        express are left out and logged.

        Raises RequestError if the schema cannot be used as a grammar. If the schema allows either an answer
        or tool calls, RequestError is also raised if the client's own schema, which is only for the answer,
        cannot be used.
        """
        # Beside calls, a schema's references take twice the room at most; the rest is for tools' names.
        most_chars = MAX_SCHEMA_CHARS
        if (answer := answer_schema(schema)) is not None:
            self._compile(answer, json.dumps(answer))  # finds its faults, with the paths that the client sent
            most_chars = 4 * MAX_SCHEMA_CHARS
        if len(text) > most_chars:
            raise _unusable_schema(f"it has {len(text)} characters, and the limit is {most_chars}")
        try:
            adapter = SchemaAdapter(schema)
            matcher = self._matcher_of(adapter.adapted())
            if matcher.is_error() and (usable := _usable_patterns(schema)):
                adapter = SchemaAdapter(schema, usable)
                matcher = self._matcher_of(adapter.adapted())
        except (ValueError, RecursionError) as error:
            raise _unusable_schema(str(error)) from error
        if fault := matcher.get_error():
            raise _unusable_schema(fault)
        matcher.deep_copy().compute_bitmask()
        if matcher.is_stopped() and not matcher.is_accepting():
            raise _unusable_schema("no text meets it")
        if adapter.left_out and answer is None:
            log_event(
                "schema_parts_ignored", cause="a grammar cannot express them", parts=adapter.left_out[:50]
            )
        return matcher

    def _matcher_of(self, schema: Any) -> Any:
        """Return llguidance's matcher for a schema that SchemaAdapter has adapted to llguidance. If it still
        cannot be compiled, the matcher is in an error state, for which the caller must check.

        Raises RequestError if the schema is false, or if it requires a value within itself without end.
        """
        from llguidance import LLMatcher, LLParserLimits

        if schema is False:
            raise _unusable_schema("no text meets it")
        if is_endless(schema):
            raise _unusable_schema("no text meets it, because it requires a value within itself without end")
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS)
        limits = LLParserLimits(max_items_in_row=_ROW_ITEMS, step_max_items=_STEP_ITEMS)
        return LLMatcher(self._vocabulary, grammar, limits=limits)


def _usable_patterns(schema: dict[str, Any]) -> dict[str, str | None]:
    """Return the regular expressions in `schema` that llguidance refuses, each with what can be used in its
    place: the same in llguidance's dialect, or None if that is impossible, as with lookahead. One that is
    invalid in any dialect (unbalanced brackets) is a mistake of the client, and not included.
    """
    usable: dict[str, str | None] = {}
    for pattern in set(patterns(schema)):
        if not (fault := _pattern_fault(pattern)):
            continue
        if (translated := from_javascript(pattern)) != pattern:
            fault = _pattern_fault(translated)
        if not fault or _MATCHES_NOTHING in fault:
            usable[pattern] = translated
        elif not any(mistake in fault for mistake in _PATTERN_MISTAKES):
            usable[pattern] = None
    return usable


def _pattern_fault(pattern: str) -> str:
    """Return what llguidance objects to in a regular expression; empty if nothing."""
    from llguidance import LLMatcher

    grammar = LLMatcher.grammar_from_json_schema({"type": "string", "pattern": pattern}, overrides=_OPTIONS)
    return str(LLMatcher.validate_grammar(grammar))


def _vocabulary(tokenizer: Any, end_tokens: list[int]) -> Any:
    """Return the same vocabulary as `llguidance.hf.from_tokenizer`, but in two calls.

    Each call blocks all Python threads until it returns, so two short calls are better than a long one.
    """
    from llguidance import LLTokenizer

    backend = tokenizer.backend_tokenizer
    if backend.padding or backend.truncation:
        backend = copy(backend)  # the copy takes as long as everything else, so it is made only if needed
        backend.no_padding()
        backend.no_truncation()
    without_slices = LLTokenizer(backend.to_str(), eos_token=end_tokens, slices=[])
    return without_slices.with_slices(LLTokenizer.general_slices())


class GrammarProcessor:
    """A logits processor that excludes every token that the grammar of one answer does not allow next.
    `constraint` has the grammar and its state. The grammar allows `end_tokens`, which end the answer,
    wherever the answer may end; once it must end, or after an error, only they are allowed. BatchGenerator
    calls the processor once for each next token, in order.
    """

    def __init__(self, constraint: Constraint, end_tokens: frozenset[int]) -> None:
        self._constraint, self._end_tokens = constraint, end_tokens
        self._was_called = False
        self._fault: Exception | None = None
        self._is_ahead = False  # whether `draft_after` has already advanced by the next call's token

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        # Before the first call, the constraint has already advanced by all tokens.
        last = cast(int, tokens[-1].item()) if self._was_called and not self._is_ahead else None
        self._was_called, self._is_ahead = True, False
        # An error here would end the whole batch's step, and thus the engine. `raise_fault` raises it later.
        try:
            if last is not None:
                self._constraint.advance(last)
            mask, must_end = self._constraint.allowed_mask(), self._constraint.must_end
        except Exception as error:
            self._fault, mask, must_end = error, None, True
        if mask is not None:
            return mx.where(_unpack(mask, logits.shape[-1]), logits, -mx.inf)
        return self._only_end_tokens(logits) if must_end else logits

    @property
    def can_draft(self) -> bool:
        """Return True if tokens that a drafter guesses can be verified now. This processor is called for each
        of them, and `rewind` must undo its calls for rejected ones. That is possible once this processor has
        been called and the grammar applies, unless an error has occurred.
        """
        return self._was_called and self._fault is None and self._constraint.is_active

    def draft_after(self, token: int, guessed: Sequence[int]) -> list[int]:
        """Advance by `token`, the next token of the answer. Return the tokens to draft after it: those that
        the grammar forces, or else the longest beginning of `guessed` that the grammar allows.

        Return [] if there are none, or if the grammar has an error, which `raise_fault` raises later.
        """
        try:
            self._constraint.advance(token)
            self._is_ahead = True
            return self._constraint.forced_tokens() or self._constraint.allowed_prefix(guessed)
        except Exception as error:  # kept for `raise_fault`, as in a call
            self._fault = error
            return []

    def allowed(self, guessed: Sequence[int]) -> list[int]:
        """Return the longest beginning of `guessed` that the grammar allows as the next tokens, up to but
        without the first end token. Return [] if an error occurs in this call or has occurred in an earlier
        one; `raise_fault` raises it later. The grammar does not advance.
        """
        try:
            return [] if self._fault is not None else self._constraint.allowed_prefix(guessed)
        except Exception as error:  # kept for `raise_fault`, as in a call
            self._fault = error
            return []

    def rewind(self, calls: int) -> None:
        """Undo the last `calls` calls of this processor."""
        try:
            if self._fault is None:
                self._constraint.rewind(calls)
        except Exception as error:  # kept for `raise_fault`, as in a call
            self._fault = error

    def raise_fault(self) -> None:
        """Raise the error that the grammar had in an earlier call, if any. Its request cannot continue."""
        if self._fault is not None:
            raise self._fault

    def _only_end_tokens(self, logits: mx.array) -> mx.array:
        ends = mx.zeros((logits.shape[-1],), dtype=mx.bool_)
        ends[mx.array(sorted(self._end_tokens))] = True
        return mx.where(ends, logits, -mx.inf)


def _unpack(bitmask: bytes, size: int) -> mx.array:
    """Convert a bitmask to `size` booleans, one for each logit. Logits beyond the bitmask, which are padding,
    get False. llguidance's own kernel for this needs Metal, so it is done in plain MLX.
    """
    words = mx.array(np.frombuffer(bitmask, dtype=np.uint32))
    bits = ((words[:, None] >> mx.arange(32, dtype=mx.uint32)) & 1).astype(mx.bool_).reshape(-1)[:size]
    missing = size - bits.shape[0]
    return mx.concatenate([bits, mx.zeros((missing,), dtype=mx.bool_)]) if missing else bits


def _unusable_schema(fault: str) -> RequestError:
    reason = " ".join(fault.split())[:300].rstrip(".")
    return RequestError("invalid_request", f"The JSON schema cannot be used as a grammar: {reason}.")
