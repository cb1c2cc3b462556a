"""Run the model store in a separate process, because converting a model imports mlx, which is large."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Generator, Iterator

STOP_TIMEOUT_S = 15.0
MODULE = "mlx_server.model_store"


def run(*arguments: str, module: str = MODULE) -> int:
    """Run the program of the model store, the Python module `module`, with these arguments in a separate
    process. Its output is shown. Return its exit code.
    """
    with _process(*arguments, module=module) as process:
        return process.wait()


def json_lines(*arguments: str, module: str = MODULE) -> Generator[str, None, None]:
    """Run the program of the model store, the Python module `module`, with `--json` and these arguments.
    Yield the lines that it prints, each of which is JSON.

    After the last line, raises subprocess.CalledProcessError if the exit code is not 0.
    """
    with _process("--json", *arguments, module=module, stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield from process.stdout
        code = process.wait()
    if code:
        raise subprocess.CalledProcessError(code, process.args)


@contextlib.contextmanager
def _process(*arguments: str, module: str, stdout: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run the Python module `module` in a process, and yield the process. At the end of the `with` block,
    wait until the process has ended. Its exit code is for the caller to check.

    If the block ends by an exception, such as KeyboardInterrupt, terminate the process first, and kill it if
    it still runs after STOP_TIMEOUT_S. A terminated process deletes its incomplete files. It has its own
    session, so that Ctrl-C does not interrupt this cleanup.
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
