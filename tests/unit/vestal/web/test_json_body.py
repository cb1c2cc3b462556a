"""Bodies: a JSON object, or a refusal that says what is wrong."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestal.web.http_error import HttpError
from vestal.web.json_body import field_with_text, parse_object


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not valid JSON"),
        (b"[1]", "a list"),
        (b'"x"', "a string"),
        (b"true", "a boolean"),
        (b"null", "null"),
        (b"1.5", "a number"),
        (b"\xff\xfe", "UTF-8"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b"[" * 100_000, "deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a": "\\ud800"}', "`a`"),
        (b'{"a": 1, "b": [{"c\\udc00": 1}]}', "`b`"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
    ],
)
def test_parse_object_refuses_anything_but_a_json_object_and_gives_the_reason(raw: bytes, word: str):
    with pytest.raises(HttpError) as caught:
        parse_object(raw)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    assert word in caught.value.message


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (b'{"a": "cut \\ud83d"}', "cut \ufffd"),
        (b'{"a": "\\uDE00\\ud83d!"}', "\ufffd\ufffd!"),
        (b'{"a": "\\ud83d\\ud83d\\ude00"}', "\ufffd\U0001f600"),
        (b'{"a": "\\\\ud83d \\ud83d"}', "\\ud83d \ufffd"),
        (b'{"a": "\\ud83d\\\\ude00"}', "\ufffd\\ude00"),
        (b'{"a": "\\ud83d\\ude00"}', "\U0001f600"),
    ],
)
def test_parse_object_replaces_lone_surrogates_if_asked_to(raw: bytes, read: str):
    """JavaScript programs cut a long text between UTF-16 units, which may be within an emoji."""
    for stepwise in (False, True):
        assert parse_object(raw, stepwise=stepwise, replaces_surrogates=True) == {"a": read}
    broken = raw[:-1] + b', "\\ud800": NaN}'
    with pytest.raises(HttpError, match="NaN"):
        parse_object(broken, replaces_surrogates=True)


def test_parse_object_reads_an_object_as_the_standard_library_does():
    body = {"a": [1, 2.5, "ä\U0001f426", None, {"b": True}], "nul": "\0"}
    assert parse_object(json.dumps(body).encode()) == body
    assert parse_object(json.dumps(body, ensure_ascii=False).encode()) == body


@given(st.binary())
def test_parse_object_turns_any_bytes_into_an_object_or_a_refusal(raw: bytes):
    with contextlib.suppress(HttpError):
        assert isinstance(parse_object(raw), dict)


def test_search_for_text_in_a_json_body_returns_the_first_top_level_field_that_contains_it():
    def has_nul(text: str) -> bool:
        return "\0" in text

    assert field_with_text({"a": 1, "b": [{"c": {"d": "x\0"}}], "e": "\0"}, has_nul) == "b"
    assert field_with_text({"a": [{"\0": 1}]}, has_nul) == "a"
    assert field_with_text({"x\0" + "y" * 100: 1}, has_nul) == "x?" + "y" * 78
    assert field_with_text({"a": [1, None, "text"]}, has_nul) is None
