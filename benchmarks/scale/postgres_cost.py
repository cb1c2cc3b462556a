"""Measure the load that workers and tasks put on the Postgres server that they share: the number of
transactions, and the server's CPU time.

    python -m benchmarks.scale.postgres_cost [WORKERS]

A real Postgres that syncs its log runs here, with the orchestrator and WORKERS workers (2 by default) as
processes, and a stand-in for the models that answers at once. CPU time is measured instead of elapsed time,
so that other load of the machine changes the figures little. The figures are copied into parameters.yaml by
hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks.processes.gateway import free_port
from tests.services import real_postgres
from tests.services.real_postgres import RealPostgres

REPO = Path(__file__).resolve().parents[2]
SYNCED = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "stats_fetch_consistency": "none"}
REST_S, STATS_S, SETTLED_S = 20.0, 2.0, 10.0
CONNECTIONS = 7
"""A worker has started when it has this many connections."""
WORKERS = 2
TASKS = 40
TOKEN = "a-token-for-a-benchmark"
CREW = "agents:\n" + "".join(
    f"  {name}: {{role: the {name}, prompt: Read., tools: []}}\n" for name in ("reader", "critic")
)


@dataclass
class Cost:
    """The work of the Postgres server: its transactions, and the CPU seconds of all its processes."""

    transactions: float
    cpu_s: float

    def since(self, before: Cost) -> Cost:
        return Cost(self.transactions - before.transactions, self.cpu_s - before.cpu_s)


class Server:
    """A new database on a running Postgres server. `cost` returns the transactions in this database and the
    CPU seconds of the whole server so far. `connections` returns how many connections the database has.
    """

    def __init__(self, postgres: RealPostgres) -> None:
        self.url = postgres.new_database()
        self._watch = psycopg.connect(postgres.url("postgres"), autocommit=True)
        self._name = self.url.rsplit("/", 1)[1]
        assert postgres._process is not None
        self._process = psutil.Process(postgres._process.pid)

    def cost(self) -> Cost:
        time.sleep(STATS_S)  # a session may report its statistics a second late
        row = self._watch.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s", (self._name,)
        ).fetchone()
        assert row is not None
        spent = 0.0
        for process in (self._process, *self._process.children()):
            times = process.cpu_times()
            spent += times.user + times.system
        return Cost(float(row[0]), spent)

    def connections(self) -> int:
        row = self._watch.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (self._name,)
        ).fetchone()
        assert row is not None
        return int(row[0])


@contextmanager
def _process(arguments: list[str], env: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(arguments, env=os.environ | env, cwd=REPO, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def _ask(url: str, body: Any = None) -> Any:
    data = None if body is None else dumps(body).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as reply:
        return loads(reply.read())


def _until(look: Any, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            if look():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit("The orchestrator did not get so far in time.")
        time.sleep(0.2)


class Stack:
    """An orchestrator and its workers on one database of `server`, with a stand-in for the models. The
    stand-in is started at once, the others by `start`. `folder` holds the home folder of each process. All
    processes are killed when `stack` is closed.
    """

    def __init__(self, folder: Path, server: Server, stack: ExitStack) -> None:
        self._models = f"http://127.0.0.1:{free_port()}"
        self._url = ""
        self._folder, self._server, self._stack = folder, server, stack
        stand_in = [
            sys.executable,
            "-m",
            "benchmarks.orchestrator.stand_in",
            "--port",
            self._models.rsplit(":", 1)[1],
        ]
        stack.enter_context(_process(stand_in, {}))
        _until(lambda: _ask(f"{self._models}/health"))
        (folder / "agents.yaml").write_text(CREW)

    def start(self, name: str, command: str) -> None:
        home, port = self._folder / name, free_port()
        home.mkdir()
        env = {
            "VESTAL_TOKEN": TOKEN,
            "VESTAL_HOME": str(home),
            "VESTAL_ORCHESTRATOR_PORT": str(port),
            "VESTAL_DATABASE_URL": self._server.url,
            "VESTAL_WORKER_ID": name,
            "VESTAL_KNOWLEDGE_DIR": str(self._folder / "knowledge"),
            "VESTAL_AGENTS_FILE": str(self._folder / "agents.yaml"),
            "OLLAMA_BASE_URL": self._models,
            "MLX_API_URL": "",
            "RECOVERY_WEBHOOK_URL": "",
            "ORCHESTRATOR_CYCLE_INTERVAL": "300",
        }
        self._stack.enter_context(_process([sys.executable, "-m", "orchestrator", command], env))
        if command == "run":
            self._url = f"http://127.0.0.1:{port}"
            _until(lambda: _ask(f"{self._url}/health"))

    def tasks(self, agents: list[str]) -> tuple[Cost, int]:
        """Run TASKS tasks for these agents to their end. Return what the Postgres server did meanwhile, and
        how many calls of models the tasks made.
        """
        _ask(f"{self._models}/control", {"chat_s": 0.0})
        before = self._server.cost()
        ids = [
            _ask(f"{self._url}/tasks", {"goal": f"goal {number}", "agents": agents})["id"]
            for number in range(TASKS)
        ]
        for one in ids:
            _until(lambda one=one: _ask(f"{self._url}/tasks/{one}")["state"] == "done")
        return self._server.cost().since(before), _ask(f"{self._models}/work")["calls"]

    def at_rest(self) -> Cost:
        """Return the transactions and the CPU seconds that Postgres needs per second while no task runs."""
        before, began = self._server.cost(), time.monotonic()
        time.sleep(REST_S)
        spent = self._server.cost().since(before)
        took_s = time.monotonic() - began
        return Cost(spent.transactions / took_s, spent.cpu_s / took_s)


def main() -> None:
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else WORKERS
    real_postgres.SETTINGS.update(SYNCED)
    with (
        ExitStack() as stack,
        tempfile.TemporaryDirectory(prefix="vestal-bench-") as folder,
        RealPostgres(free_port()) as postgres,
    ):
        server = Server(postgres)
        one = Stack(Path(folder), server, stack)
        one.start("first", "run")
        time.sleep(SETTLED_S)
        alone, connections = one.at_rest(), server.connections()
        for number in range(workers):
            one.start(f"worker-{number}", "worker")
        _until(lambda: server.connections() >= connections + workers * CONNECTIONS)
        time.sleep(SETTLED_S)
        together = one.at_rest()
        rest = (together.transactions - alone.transactions) / workers
        rest_cpu = (together.cpu_s - alone.cpu_s) / workers
        print(f"connections at rest: {connections}, with {workers} workers {server.connections()}")
        print(f"a worker at rest: {rest:.1f} transactions/s, {rest_cpu * 1e3:.2f} ms of CPU a second")
        print(
            f"the orchestrator at rest: {alone.transactions:.1f} transactions/s, {alone.cpu_s * 1e3:.2f} ms"
        )
        for agents in (["lead"], ["reader", "critic"]):
            began = time.monotonic()
            cost, calls = one.tasks(agents)
            took_s = time.monotonic() - began
            own = cost.transactions - together.transactions * took_s
            cpu_s = cost.cpu_s - together.cpu_s * took_s
            print(
                f"{TASKS} tasks, {calls} calls: {own / TASKS:.1f} transactions a task beyond those at rest, "
                f"{cpu_s / TASKS * 1e3:.1f} ms of the server's CPU; all {cost.transactions:.0f} "
                f"transactions took {cost.cpu_s * 1e3 / cost.transactions:.2f} ms of CPU each; {took_s:.0f} s"
            )


if __name__ == "__main__":
    main()
