"""The start of the template process: it may fail, and the process may be closed meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import threading
from typing import Any

import psutil
import pytest

from mlx_server.engine.generation.prompts.templates.child import TemplateChild, resident_bytes
from mlx_server.engine.generation.prompts.templates.limits import TemplateLimits, TemplateProcessDied
from mlx_server.engine.generation.prompts.templates.process import TemplateProcess
from tests.component.mlx_server.engine.templates.test_limits import LOOPS, SOON_S, greeting, wait_until


def test_template_process_closed_while_it_is_being_started_ends_at_once(monkeypatch):
    """Otherwise the unload of a model, on the MLX thread, waits until its template is rendered."""
    process = TemplateProcess(TemplateLimits(seconds=60))
    begun, closes, start = threading.Event(), threading.Event(), TemplateChild.__init__

    def start_slowly(*arguments: Any) -> None:
        start(*arguments)
        begun.set()
        closes.wait(SOON_S)

    monkeypatch.setattr(TemplateChild, "__init__", start_slowly)
    errors = list[Exception]()

    def render() -> None:
        try:
            process.render(LOOPS, {})
        except TemplateProcessDied as error:
            errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for work in (render, process.close)]
    threads[0].start()
    assert begun.wait(SOON_S)
    threads[1].start()
    wait_until(lambda: process._closed)
    closes.set()
    for thread in threads:
        thread.join(SOON_S)
        assert not thread.is_alive()
    assert "unloaded" in str(errors[0]) and process.pid is None


@pytest.mark.parametrize("call", ["socketpair", "Popen"])
def test_template_process_without_a_free_file_descriptor_is_reported_and_started_later(
    monkeypatch, capsys, call
):
    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with contextlib.closing(TemplateProcess()) as process, monkeypatch.context() as patched:
        patched.setattr(socket if call == "socketpair" else subprocess, call, fail)
        process.start()
        assert "template_process_not_started" in capsys.readouterr().err
        with pytest.raises(TemplateProcessDied, match="could not be started"):
            greeting(process)
        patched.undo()
        assert greeting(process) == "Hello you"


def test_memory_of_a_template_process_counts_as_0_if_no_file_can_be_opened(monkeypatch):
    def fail(pid: int) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(psutil, "Process", fail)
    assert resident_bytes(1) == 0
