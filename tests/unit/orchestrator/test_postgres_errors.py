"""Postgres's errors in a person's words: the remedy, and never the password."""

from __future__ import annotations

import pytest

from orchestrator.storage.postgres_errors import FORM, meanwhile, one_line, remedy

URL = "postgresql://user:s3cret%40x@host/db"


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ('FATAL: database "nothere" does not exist', "createdb"),
        ('FATAL: password authentication failed for user "u"', "Correct the user or the password"),
        ("server does not support SSL, but SSL was required", "TLS"),
        ('connection is bad: invalid sslmode value: "maybe"', "TLS"),
        ('extension "vector" is not available', "Install pgvector"),
        ('type "vector" does not exist LINE 2', "ALTER EXTENSION vector SET SCHEMA public"),
        ("permission denied for database d", "right to create schemas"),
    ],
)
def test_remedy_of_what_waiting_cannot_mend_is_named(said: str, cure: str):
    assert cure in str(remedy(said))


def test_remedy_of_a_server_that_is_away_is_to_wait():
    assert remedy("connection refused") is None
    assert remedy("FATAL: sorry, too many clients already") is None
    assert remedy("no idea", unusable_url=True) == FORM


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("cannot execute CREATE SCHEMA in a read-only transaction", "primary"),
        ("FATAL: sorry, too many clients already", "max_connections"),
        ("could not extend file: No space left on device", "disk"),
        ("Connection refused", "start it"),
    ],
)
def test_meanwhile_of_what_may_pass_is_named(said: str, cure: str):
    assert cure in meanwhile(said)


@pytest.mark.parametrize("secret", ["s3cret%40x", "s3cret@x"])
def test_one_line_hides_the_password_as_written_and_as_meant(secret: str):
    """libpq quotes what it cannot read of a URL: `invalid percent-encoded token: "s3cret%zz"`."""
    assert one_line(ValueError(f'invalid\n token: "{secret}"'), URL) == 'invalid token: "(hidden)"'


def test_one_line_hides_a_password_among_the_options():
    error = ValueError("bad: hidden-word")
    assert one_line(error, "postgresql://user@host/db?password=hidden-word") == "bad: (hidden)"


def test_one_line_of_an_error_without_words_is_its_name():
    assert one_line(TimeoutError(), URL) == "TimeoutError"
