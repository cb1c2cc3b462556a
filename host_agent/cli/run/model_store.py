"""Run the model store in a process of its own, because converting a model imports mlx, which is large."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Generator, Iterator

STOP_TIMEOUT_S = 15.0
MODULE = "mlx_server.model_store"


def run(*arguments: str, module: str = MODULE) -> int:
    """Run one command of the model store with its output shown, and return its exit code."""
    with _process(*arguments, module=module) as process:
        return process.wait()


def json_lines(*arguments: str, module: str = MODULE) -> Generator[str, None, None]:
    """Yield the lines that a command of the model store prints; they are JSON.

    Raises subprocess.CalledProcessError at the end if its exit code is not 0.
    """
    with _process("--json", *arguments, module=module, stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield from process.stdout
        code = process.wait()
    if code:
        raise subprocess.CalledProcessError(code, process.args)


@contextlib.contextmanager
def _process(*arguments: str, module: str, stdout: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start the process. If this process is interrupted, terminate it; it then deletes incomplete files.

    The process has a session of its own, so that Ctrl-C does not interrupt it while it deletes them.
    """
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=stdout, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
            process.kill()
            raise
