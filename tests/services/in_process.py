"""`vestal` commands that run in the process of the tests: a new Python takes half a second to import them."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Iterator, Mapping

from host_agent.cli.main import main


def vestal(arguments: tuple[str, ...], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command with exactly this environment. Return its exit code and what it printed."""
    out, errors = io.StringIO(), io.StringIO()
    with _environment(env), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = main(arguments)
        except SystemExit as stop:  # of argparse
            code = stop.code if isinstance(stop.code, int) else 1
    return subprocess.CompletedProcess(("vestal", *arguments), code, out.getvalue(), errors.getvalue())


@contextlib.contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
