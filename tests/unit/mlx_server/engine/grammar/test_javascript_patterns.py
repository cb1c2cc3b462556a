"""Regular expressions of JavaScript mean in a grammar what they mean in JavaScript."""

from __future__ import annotations

import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.grammar.grammars import Grammars
from mlx_server.engine.grammar.javascript_patterns import from_javascript


def is_allowed(pattern: str, text: str) -> bool:
    matcher = Grammars.for_checks()._matcher({"type": "string", "pattern": pattern})
    return matcher.consume_tokens(list(text.encode())) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("pattern", "translated"),
    [
        ("^[^]$", r"^[\s\S]$"),
        ("a[]b", r"a[^\s\S]b"),
        ("[[]", r"[\[]"),
        ("[^[&&~]x[", r"[^\[\&\&\~]x["),
        (r"\[^][]", r"\[^][^\s\S]"),
        (r"[\]]", r"[\]]"),
        ("[a-z]+\\", "[a-z]+\\"),
        ("", ""),
    ],
)
def test_pattern_of_javascript_is_translated_class_by_class(pattern, translated):
    assert from_javascript(pattern) == translated


@pytest.mark.parametrize("pattern", ["^[^]$", "^[[x]$", "^[x&&y]$", "^(?:[]|x)$"])
def test_pattern_that_only_javascript_understands_holds_the_answer_to_it(pattern):
    """Each was a 400 ("unclosed character class")."""
    assert is_allowed(pattern, '"x"') and not is_allowed(pattern, '"xx"')


def test_pattern_that_only_javascript_understands_and_has_lookahead_is_left_out():
    assert is_allowed("^(?=x)[^]$", '"yy"')


@pytest.mark.parametrize("pattern", ["[]", "a[]", "[", "[a", r"[\]", "(", "a)"])
def test_pattern_that_matches_nothing_or_is_unbalanced_is_refused(pattern):
    with pytest.raises(RequestError, match="cannot be used as a grammar"):
        Grammars.for_checks().check({"type": "string", "pattern": pattern})


def test_pattern_of_javascript_for_the_names_of_properties_holds_the_answer_to_it():
    schema = {
        "type": "object",
        "patternProperties": {"^[^]$": {"type": "boolean"}},
        "additionalProperties": False,
    }
    matcher = Grammars.for_checks()._matcher(schema)
    assert matcher.consume_tokens(list(b'{"x":true}')) and matcher.is_accepting()
