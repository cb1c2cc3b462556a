"""The remedies for errors of Postgres, by their messages (psycopg 3.3, Postgres 16)."""

from __future__ import annotations

import pytest

from orchestrator.storage.postgres_errors import FORM, START_IT, meanwhile, one_line, remedy

URL = "postgresql://user:s3cret%40x@host/db"
AT = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (AT + 'FATAL: password authentication failed for user "vestal"', "password"),
        (AT + "fe_sendauth: no password supplied", "Put the password"),
        (AT + 'FATAL: database "nix" does not exist', "createdb"),
        (AT + 'FATAL: role "u" does not exist', "createuser"),
        (AT + 'FATAL: no pg_hba.conf entry for host "10.0.0.7", user "u", database "d"', "pg_hba.conf"),
        ('extension "vector" is not available', "pgvector"),
        ('permission denied to create extension "vector" HINT: Must be superuser', "superuser"),
        ("permission denied for database d", "right to create"),
        (AT + "server does not support SSL, but SSL was required", "TLS"),
        ('connection is bad: invalid sslmode value: "maybe"', "TLS"),
        ('type "vector" does not exist LINE 2', "ALTER EXTENSION vector SET SCHEMA public"),
    ],
)
def test_remedy_for_a_permanent_postgres_error_names_the_cause(said: str, words: str):
    assert words in (remedy(said) or "")


@pytest.mark.parametrize(
    "said",
    [
        AT + "Connection refused Is the server running on that host and accepting TCP/IP connections?",
        AT + "FATAL: the database system is starting up",
        AT + "FATAL: sorry, too many clients already",
        "consuming input failed: server closed the connection unexpectedly",
        "connection timeout expired",
    ],
)
def test_remedy_for_a_temporary_postgres_error_is_none(said: str):
    assert remedy(said) is None


def test_remedy_for_a_postgres_url_that_libpq_refuses_shows_the_form_of_a_url():
    assert remedy('invalid URI query parameter: "foo"', unusable_url=True) == FORM


def test_postgres_error_without_a_message_is_shown_by_its_class_name():
    assert one_line(TimeoutError(), URL) == "TimeoutError"
    assert one_line(ValueError("a\n  b"), URL) == "a b"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("cannot execute CREATE SCHEMA in a read-only transaction", "primary"),
        (AT + "FATAL: sorry, too many clients already", "max_connections"),
        ("could not extend file: No space left on device", "disk"),
        (AT + "Connection refused", "start it"),
    ],
)
def test_advice_during_a_temporary_postgres_error_names_the_cause(said: str, words: str):
    assert words in meanwhile(said, START_IT)


@pytest.mark.parametrize("secret", ["s3cret%40x", "s3cret@x"])
def test_postgres_error_shown_in_one_line_hides_the_password_escaped_and_unescaped(secret: str):
    """libpq quotes the part of a URL that it cannot parse: `invalid percent-encoded token: "s3cret%zz"`."""
    assert one_line(ValueError(f'invalid\n token: "{secret}"'), URL) == 'invalid token: "(hidden)"'


def test_postgres_error_shown_in_one_line_hides_a_password_in_the_url_options():
    error = ValueError("bad: hidden-word")
    assert one_line(error, "postgresql://user@host/db?password=hidden-word") == "bad: (hidden)"
