"""Which of Postgres's errors waiting cannot mend, and their remedies. Pure.

A refused connection carries no SQLSTATE: libpq hands on the server's words alone
(https://www.postgresql.org/docs/current/libpq-connect.html).
"""

from __future__ import annotations

FORM = "Correct VESTAL_DATABASE_URL: postgresql://USER:PASSWORD@HOST:5432/DATABASE."
REMEDIES = (
    ("password authentication failed", "Correct the user or the password in VESTAL_DATABASE_URL."),
    (
        "no password supplied",
        "Put the password into VESTAL_DATABASE_URL: postgresql://USER:PASSWORD@HOST/DATABASE.",
    ),
    ("no pg_hba.conf entry", "Let this host in, in the server's pg_hba.conf."),
    ('extension "vector" is not available', "Install pgvector on the server, or use an image that has it."),
    ("extension control file", "Install pgvector on the server, or use an image that has it."),
    (
        "permission denied to create extension",
        "Let a superuser run `CREATE EXTENSION vector` in this database.",
    ),
    ("permission denied", "Give the user the right to create schemas in this database."),
    ("does not exist", "Create it (`createdb`, `createuser`), or correct VESTAL_DATABASE_URL."),
)


def remedy(sentence: str, unusable_url: bool = False) -> str | None:
    """What is to be done about the error, or None where the server may simply be away for now."""
    found = next((cure for sign, cure in REMEDIES if sign in sentence), None)
    return FORM if found is None and unusable_url else found


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
