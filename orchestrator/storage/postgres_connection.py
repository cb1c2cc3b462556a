"""Configure connections to Postgres: time-outs of each session, and how a lost connection is replaced."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from orchestrator.storage.postgres_errors import one_line, remedy

if TYPE_CHECKING:
    import psycopg

SCHEMA = "vestal"
CONNECT_WITHIN_S = 5  # libpq accepts whole seconds only
TRY_AGAIN_S = 1.0
# A process that froze in a transaction, or whose machine is gone, must not keep its locks. The server's
# defaults for these cases are no limit and two hours (https://www.postgresql.org/docs/current/runtime-config-
# client.html).
IDLE_IN_TRANSACTION_S = 5
SESSION_TIMEOUTS = {
    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_S * 1000,  # ms
    "tcp_keepalives_idle": 5,  # s
    "tcp_keepalives_interval": 3,
    "tcp_keepalives_count": 3,
}
# The same for a server that is silent because its machine or the network is gone. Without this a query waits
# for 15 minutes or more (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES).
CLIENT_TIMEOUTS = {
    "keepalives_idle": 5,  # s
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # ms
}


def session_options(*more: str) -> str:
    """Return the value of libpq's parameter `options` that sets SESSION_TIMEOUTS and then the settings in
    `more`, each of which has the form `-c name=value`.
    """
    return " ".join([*(f"-c {name}={value}" for name, value in SESSION_TIMEOUTS.items()), *more])


def settings(application_name: str, options: str) -> dict[str, Any]:
    """Return the keyword arguments for psycopg.connect, except for the URL. `options` is libpq's
    `options`.
    """
    return {
        **CLIENT_TIMEOUTS,
        "connect_timeout": CONNECT_WITHIN_S,
        "options": options,
        "application_name": application_name,
    }


class PatientConnect:
    """Opens connections for DBOS. A call returns a new connection. If the server cannot be reached, the call
    waits until it is back if the attribute `patient` is True, and raises psycopg.OperationalError otherwise.

    `patient` is False until DBOS has opened the database (`PostgresTasks.opened` sets it). Even if it is
    True, a call raises at once when waiting cannot help, as with a wrong password.

    DBOS itself waits longer after each failure, up to 90 s, which no setting changes, so it might notice only
    a minute later that the server is back. This class tries every second, so that DBOS sees one failure per
    outage.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.patient = False  # at the start a failure is raised, and the whole process starts again

    def __call__(self) -> psycopg.Connection[Any]:
        import psycopg

        while True:
            try:
                return psycopg.connect(self.url, **settings("vestal tasks", session_options()))
            except psycopg.OperationalError as error:
                if not self.patient or remedy(one_line(error, self.url)) is not None:
                    raise
            time.sleep(TRY_AGAIN_S)
