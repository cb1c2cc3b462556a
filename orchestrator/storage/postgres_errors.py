"""Which of Postgres's errors waiting cannot mend, and their remedies. Pure.

A refused connection carries no SQLSTATE: libpq hands on the server's words alone
(https://www.postgresql.org/docs/current/libpq-connect.html).
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
# What passes, or may: a standby is promoted, a disk is emptied, another program lets go of its connections.
PASSING = (
    ("read-only transaction", "name the primary, not a standby, in VESTAL_DATABASE_URL"),
    ("No space left on device", "free some space on the server's disk"),
    ("too many connections", "raise the server's max_connections, or the user's CONNECTION LIMIT"),
    ("too many clients", "raise the server's max_connections"),
    ("connection slots are reserved", "raise the server's max_connections"),
)
START_IT = "start it, or correct its URL"
HIDDEN = "(hidden)"


def remedy(sentence: str, unusable_url: bool = False) -> str | None:
    """What is to be done about the error, or None where the server may simply be away for now."""
    found = next((cure for sign, cure in REMEDIES if sign in sentence), None)
    return FORM if found is None and unusable_url else found


def meanwhile(sentence: str) -> str:
    """What may be done about an error that may also pass by itself."""
    return next((cure for sign, cure in PASSING if sign in sentence), START_IT)


def one_line(error: BaseException, url: str) -> str:
    """The error's words, without the password of the URL: libpq quotes what it cannot read."""
    said = " ".join(str(error).split()) or type(error).__name__
    for secret in sorted(_secrets(url), key=len, reverse=True):
        said = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, said)
    return said.rstrip(".")


def _secrets(url: str) -> set[str]:
    parts = urlsplit(url)
    written = {parts.password or "", *(v for k, v in parse_qsl(parts.query) if "password" in k)}
    return {secret for one in written for secret in (one, unquote(one)) if secret}
