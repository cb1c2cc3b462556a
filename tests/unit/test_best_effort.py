"""No long-running program writes in a way that can end it: logs and small files are best effort."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
LONG_RUNNING = ("vestal", "host_agent", "mlx_server/gateway", "mlx_server/engine", "orchestrator")
ONE_SHOT = ("host_agent/cli", "host_agent/doctor", "host_agent/service_manager")
"""A command's output is for the person who waits for it, and its error is a sentence and an exit code."""

ALLOWED = {
    "vestal/best_effort/files.py": {"os.open", "open"},
    "vestal/best_effort/output.py": {"os.open"},
    # A lock's file stays empty; who cannot open it goes on without the lock.
    "vestal/platform/file_lock.py": {"os.open"},
    # A child's log, or the null device if it cannot be opened.
    "vestal/supervision/processes/log_file.py": {"os.open"},
    # Failures are caught one by one: no part of a copy is left.
    "vestal/platform/log_rotation.py": {"os.open", "copyfile"},
    # A lock's file, which stays empty: who makes a token has to handle OSError.
    "vestal/config/token.py": {"os.open"},
    # `vestal up --dry-run` and its like print what they would run.
    "vestal/platform/commands.py": {"print"},
    # The prompt cache counts what it cannot write (`not_written`) and tries again.
    "mlx_server/engine/prompt_cache/disk/folder.py": {"os.open", "open"},
    "mlx_server/engine/prompt_cache/disk/disk_tier.py": {"touch"},
    # The answer log keeps in memory what it cannot write, up to a limit, and tries again.
    "mlx_server/gateway/answer_log/folder.py": {"os.open"},
    # Only `vestal up` calls this, for a person.
    "host_agent/services/orchestrator/mode.py": {"touch"},
    # The heartbeat catches OSError.
    "orchestrator/processes/common.py": {"touch"},
    # An empty file for SQLite, which reports the reason if it cannot be created either.
    # The same, and a lock's file, which stays empty: its callers report OSError as a failure of the database.
    "orchestrator/storage/sqlite_file.py": {"open"},
    # These end by themselves.
    "orchestrator/__main__.py": {"print"},
    "orchestrator/agents/__main__.py": {"print"},
    "orchestrator/processes/healthcheck.py": {"print"},
}
STARTS = {
    "mlx_server/gateway/main.py": "main",
    "mlx_server/engine/__main__.py": "main",
    "host_agent/agent/daemon.py": "serve",
    "host_agent/cli/run/agent.py": "run",
    "host_agent/watchdog/__main__.py": "main",
    "orchestrator/processes/common.py": "begin",
}
WRITING_METHODS = {"write_text", "write_bytes", "touch", "copyfile", "NamedTemporaryFile", "mkstemp"}
WRITING_HANDLERS = {"FileHandler", "RotatingFileHandler", "TimedRotatingFileHandler"}


def _writes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of each call, or method that another may call, which writes to a file or prints."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in WRITING_METHODS | WRITING_HANDLERS:
            yield node.lineno, node.attr
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        last = name.rpartition(".")[2]
        if name == "print":
            yield call.lineno, name
        elif name == "os.open":
            if any(flag in ast.unparse(call) for flag in ("O_WRONLY", "O_RDWR", "O_CREAT")):
                yield call.lineno, name
        elif last == "open" and _opens_for_writing(call):
            yield call.lineno, last


def _opens_for_writing(call: ast.Call) -> bool:
    values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [value.value for value in values if isinstance(value, ast.Constant)]
    return any(isinstance(mode, str) and len(mode) <= 3 and set(mode) & set("wax+") for mode in modes)


def _sources() -> Iterator[Path]:
    for folder in LONG_RUNNING:
        for path in (REPO / folder).rglob("*.py"):
            if not str(path.relative_to(REPO)).startswith(ONE_SHOT):
                yield path


def _calls(name: str) -> list[tuple[int, str]]:
    return list(_writes(ast.parse((REPO / name).read_text())))


def test_long_running_programs_write_files_and_logs_only_through_the_best_effort_package():
    """On a full disk, a `print` once ended the gateway and each restart of it, and a PID file the agent."""
    found = []
    for path in _sources():
        name = str(path.relative_to(REPO))
        allowed = ALLOWED.get(name, set())
        found += [f"{name}:{line} {call}" for line, call in _calls(name) if call not in allowed]
    assert not found, "use vestal.best_effort: output for logs, files for small files"


def test_every_listed_exception_to_the_best_effort_rule_is_still_needed():
    for name, calls in ALLOWED.items():
        assert calls <= {call for _, call in _calls(name)}, name


@pytest.mark.parametrize(("name", "function"), STARTS.items())
def test_every_long_running_program_calls_output_protect_before_anything_else(name: str, function: str):
    tree = ast.parse((REPO / name).read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    (start,) = (node for node in functions if node.name == function)
    first = start.body[ast.get_docstring(start) is not None]
    assert ast.unparse(first).startswith("output.protect(")


@pytest.mark.parametrize(
    ("program", "call"),
    [
        ("print('x')", "print"),
        ("path.write_text('x')", "write_text"),
        ("open(path, 'w')", "open"),
        ("path.open('ab')", "open"),
        ("path.open(mode='x')", "open"),
        ("os.open(path, os.O_WRONLY)", "os.open"),
        ("to_thread(path.touch)", "touch"),
        ("logging.FileHandler('x.log')", "FileHandler"),
    ],
)
def test_source_code_check_finds_every_kind_of_call_that_writes_a_file_or_prints(program: str, call: str):
    assert [name for _, name in _writes(ast.parse(program))] == [call]


def test_best_effort_check_ignores_calls_that_only_read():
    assert not list(
        _writes(ast.parse("open(path); path.open('rb'); os.open(path, os.O_RDONLY); path.read_text()"))
    )
