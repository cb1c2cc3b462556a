"""The orchestrator on a Postgres that cannot be written: it answers 503 meanwhile, and then continues by
itself.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.component.orchestrator.conftest import Orchestrator, StandIn, wait_until
from tests.component.orchestrator.test_broken_disk import answer, assert_unavailable_at_most
from tests.services.real_postgres import RealPostgres

EVERY_TABLE = """
    SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('dbos', 'vestal')
"""
DISK_FULL = """
    CREATE OR REPLACE FUNCTION public.no_space() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file "base/5/16": No space left on device' USING ERRCODE = '53100';
    END $$
"""


class Fault:
    """Makes the server refuse writes, as a standby or a full disk does, and lets it work again."""

    def __init__(self, url: str, kind: str) -> None:
        self._url, self._kind = url, kind

    def begin(self) -> None:
        if self._kind == "read_only":
            self._run("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
            wait_until("the server has told its sessions", self._is_read_only)
            return
        self._run(DISK_FULL)
        for table in self._tables():
            self._run(
                f"CREATE TRIGGER no_space BEFORE INSERT OR UPDATE OR DELETE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION public.no_space()"
            )

    def end(self) -> None:
        if self._kind == "read_only":
            self._run("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
            return
        for table in self._tables():
            self._run(f"DROP TRIGGER no_space ON {table}")

    def _is_read_only(self) -> bool:
        """Return what a new session has. The server informs the others before it begins a new one."""
        with psycopg.connect(self._url) as connection:
            row = connection.execute("SHOW default_transaction_read_only").fetchone()
        return row == ("on",)

    def _tables(self) -> list[str]:
        with psycopg.connect(self._url) as connection:
            return [row[0] for row in connection.execute(EVERY_TABLE)]

    def _run(self, *statements: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.mark.parametrize(
    ("kind", "advice"), [("read_only", "name the primary"), ("disk_full", "free some space")]
)
def test_task_while_postgres_cannot_be_written_is_a_503_and_running_tasks_finish_later(
    orchestrator: Callable[..., Orchestrator],
    llm: StandIn,
    free_port: Callable[[], int],
    kind: str,
    advice: str,
):
    """Earlier, a Postgres that was read-only or had a full disk caused a 500, and ended the running tasks."""
    with RealPostgres(free_port()) as server:
        url = server.new_database()
        one = orchestrator(
            MLX_API_URL=llm.url, VESTAL_DATABASE_URL=url, ORCHESTRATOR_CYCLE_INTERVAL="1"
        ).start()
        one.finished(one.submit("before"))
        llm.control(hold=True)
        task = one.submit("a long answer")
        wait_until("its step runs", lambda: any(s["state"] == "running" for s in one.task(task)["steps"]))
        fault = Fault(url, kind)
        fault.begin()
        llm.control(hold=False)
        wait_until("the task waits", lambda: one.events("tasks_wait"))
        status, retry_after, said = answer(
            one, "POST", "/tasks", {"goal": "meanwhile", "idempotency_key": "k"}
        )
        assert (status, retry_after, advice in said) == (503, "5", True), said
        assert "kept-in-tests" not in one.said()
        assert 503 in assert_unavailable_at_most(one)
        assert one.task(task)["state"] == "running"
        fault.end()
        one.finished(task)
        one.finished(one.submit("meanwhile", idempotency_key="k"))
        assert one.process.poll() is None
        assert not one.events("request_failed")
        asked = [c for c in llm.calls("/api/chat") if "a long answer" in c["messages"][-1]["content"]]
        assert len(asked) == 1, "a finished step is not paid for twice"
        one.end()
