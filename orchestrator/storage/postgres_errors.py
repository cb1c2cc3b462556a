"""Distinguish permanent from temporary errors of Postgres by the words of their messages, and name the
remedies. Pure.

The words decide and not the SQLSTATE, because a refused connection has none: libpq passes on only the
server's message (https://www.postgresql.org/docs/current/libpq-connect.html).
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

FORM = "Correct VESTAL_DATABASE_URL: postgresql://USER:PASSWORD@HOST:5432/DATABASE."
SSL = "Let the server speak TLS, or correct `sslmode` in VESTAL_DATABASE_URL."
REMEDIES = (
    ("password authentication failed", "Correct the user or the password in VESTAL_DATABASE_URL."),
    (
        "no password supplied",
        "Put the password into VESTAL_DATABASE_URL: postgresql://USER:PASSWORD@HOST/DATABASE.",
    ),
    ("no pg_hba.conf entry", "Let this host in, in the server's pg_hba.conf."),
    ("server does not support SSL", SSL),
    ("invalid sslmode value", SSL),
    ("root certificate file", "Put the certificate there, or correct `sslmode` in VESTAL_DATABASE_URL."),
    ("certificate verify failed", "Name the right `sslrootcert` in VESTAL_DATABASE_URL."),
    ('extension "vector" is not available', "Install pgvector on the server, or use an image that has it."),
    ("extension control file", "Install pgvector on the server, or use an image that has it."),
    (
        "permission denied to create extension",
        "Let a superuser run `CREATE EXTENSION vector` in this database.",
    ),
    ("permission denied", "Give the user the right to create schemas in this database."),
    ('type "vector" does not exist', "Let a superuser run `ALTER EXTENSION vector SET SCHEMA public`."),
    ("does not exist", "Create it (`createdb`, `createuser`), or correct VESTAL_DATABASE_URL."),
)
# Temporary errors: a standby is promoted, a disk gets free space, another program closes its connections.
TEMPORARY = (
    ("read-only transaction", "name the primary, not a standby, in VESTAL_DATABASE_URL"),
    ("No space left on device", "free some space on the server's disk"),
    ("too many connections", "raise the server's max_connections, or the user's CONNECTION LIMIT"),
    ("too many clients", "raise the server's max_connections"),
    ("connection slots are reserved", "raise the server's max_connections"),
)
START_IT = "start it, or correct its URL"
HIDDEN = "(hidden)"


def remedy(sentence: str, unusable_url: bool = False) -> str | None:
    """Return the remedy for a permanent error; None if the error may disappear by itself, for example because
    the server is away.

    `sentence` is the error's message. `unusable_url` says that the URL itself cannot be used.
    """
    found = next((advice for sign, advice in REMEDIES if sign in sentence), None)
    return FORM if found is None and unusable_url else found


def meanwhile(sentence: str, otherwise: str) -> str:
    """Return what a person can do about a temporary error with the message `sentence`; return `otherwise` if
    the message is not a known one.
    """
    return next((advice for sign, advice in TEMPORARY if sign in sentence), otherwise)


def one_line(error: BaseException, url: str) -> str:
    """Return the error's message on one line. The password in `url` is hidden in it, because libpq may quote
    it.
    """
    message = " ".join(str(error).split()) or type(error).__name__
    for secret in sorted(_secrets(url), key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, message)
    return message.rstrip(".")


def _secrets(url: str) -> set[str]:
    parts = urlsplit(url)
    written = {parts.password or "", *(v for k, v in parse_qsl(parts.query) if "password" in k)}
    return {secret for one in written for secret in (one, unquote(one)) if secret}
