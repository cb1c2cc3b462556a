"""How this process talks to Postgres: what each session asks of the server, and how a lost one comes back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from orchestrator.storage.postgres_errors import one_line, remedy

if TYPE_CHECKING:
    import psycopg

SCHEMA = "vestal"
CONNECT_WITHIN_S = 5  # libpq takes whole seconds
TRY_AGAIN_S = 1.0
# A process that froze in mid-transaction, or whose machine is gone, must not hold its locks: the server's own
# answers to both are a day and two hours (https://www.postgresql.org/docs/current/runtime-config-
# client.html).
IDLE_IN_TRANSACTION_S = 5
SESSION = {
    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_S * 1000,  # ms
    "tcp_keepalives_idle": 5,  # s
    "tcp_keepalives_interval": 3,
    "tcp_keepalives_count": 3,
}
# The same of the server's silence: its machine is gone, or the network is. Without it a query waits for 15
# minutes or more (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES).
SILENCE = {
    "keepalives_idle": 5,  # s
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # ms
}


def session_options(*more: str) -> str:
    """SESSION as libpq's `options`."""
    return " ".join([*(f"-c {name}={value}" for name, value in SESSION.items()), *more])


def settings(application_name: str, options: str) -> dict[str, Any]:
    """For psycopg.connect, besides the URL."""
    return {
        **SILENCE,
        "connect_timeout": CONNECT_WITHIN_S,
        "options": options,
        "application_name": application_name,
    }


class PatientConnect:
    """Opens connections for DBOS; once `patient`, each waits until the server is back.

    DBOS backs off by itself, up to 90 s, and knows no setting for it: a server back after a minute would be
    left waiting for as long again. Here it is asked every second, so DBOS meets one failure an outage.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.patient = False  # at the start a failure is told, and the process tries again as a whole

    def __call__(self) -> psycopg.Connection[Any]:
        import psycopg

        while True:
            try:
                return psycopg.connect(self.url, **settings("vestal tasks", session_options()))
            except psycopg.OperationalError as error:
                if not self.patient or remedy(one_line(error, self.url)) is not None:
                    raise
            time.sleep(TRY_AGAIN_S)
