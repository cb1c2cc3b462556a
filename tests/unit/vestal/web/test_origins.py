"""Which pages are admitted, by the Origin that their browser or web view sends."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestal.web.origins import OriginRules, host_name

RULES = OriginRules(
    names=frozenset({"localhost", "::1"}),
    schemes=frozenset({"app", "vscode-webview"}),
    patterns=("https://chat.example.com", "https://*.example.org", "chrome-extension://*", "http://a*b*c"),
)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b"127.0.0.1:9099", "127.0.0.1"),
        (b"LOCALHOST", "localhost"),
        (b"LOCALHOST:1", "localhost"),
        (b"[::1]:9099", "::1"),
        (b"localhost.", "localhost"),
        (b"localhost:", "localhost"),
        (b"my_host.local:1", "my_host.local"),
        (b"", ""),
        (b":1", ""),
        (b"a@127.0.0.1", ""),
        (b"u:p@a", ""),
        (b"127.0.0.1/x", ""),
        (b"a?b", ""),
        (b"127.0.0.1:port", ""),
        (b"[::1", ""),
        (b"[::1]x", ""),
        (b"loc\talhost", ""),
        (b"localhost\n", ""),
        (b"\xff\xfe", ""),
    ],
)
def test_host_name_of_a_host_header_is_without_port_and_empty_if_malformed(header: bytes, name: str):
    assert host_name(header) == name


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "HTTPS://LocalHost:3000",
        "http://[::1]:8080",
        "app://obsidian.md",
        "app://",
        "vscode-webview://0123",
        "https://chat.example.com",
        "https://x.y.example.org",
        "chrome-extension://abcdef",
        "http://abc",
        "http://a-b-b-c",
    ],
)
def test_origin_rules_admit_origins_that_match_a_name_a_scheme_or_a_pattern(origin: str):
    assert RULES.admit(origin.encode())


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "app",
        "app:",
        "apps://x",
        "ftp://localhost",
        "localhost",
        "http://localhost.evil.example",
        "http://evil.example/localhost",
        "http://localhost@evil.example",
        "https://chat.example.com.evil.example",
        "http://chat.example.com",
        "https://chat.example.com:8443",
        "https://example.org",
        "https://x.example.org.evil.example",
        "http://ab",
        "http://acb",
        "\xff://x",
    ],
)
def test_origin_rules_refuse_origins_that_match_no_name_no_scheme_and_no_pattern(origin: str):
    assert not RULES.admit(origin.encode("latin-1"))


def test_origin_rules_with_a_lone_star_admit_every_page():
    assert OriginRules(patterns=("*",)).admit(b"https://anything.example")
    assert OriginRules(patterns=("*",)).admit(b"null")
    assert not OriginRules().admit(b"http://localhost")


@given(st.lists(st.sampled_from("ab*"), max_size=6), st.text("ab", max_size=8))
def test_origin_rules_with_stars_agree_with_a_regular_expression(pattern: list[str], text: str):
    import re

    expected = re.fullmatch("".join(".*" if part == "*" else part for part in pattern), text)
    assert OriginRules(patterns=("".join(pattern),)).admit(text.encode()) == bool(expected)


def test_origin_rules_with_many_stars_take_linear_time():
    rules, origin = OriginRules(patterns=("a*" * 30 + "b",)), b"a" * 60_000
    began = time.thread_time()
    assert not rules.admit(origin)
    assert time.thread_time() - began < 1
