"""The template process: what ends it, its limits, and that it never outlives its engine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mlx_server.engine.generation.prompts.templates.limits import (
    MIB,
    TemplateLimitExceeded,
    TemplateLimits,
    TemplateProcessDied,
    TemplateRefusal,
)
from mlx_server.engine.generation.prompts.templates.process import (
    TemplateProcess,
    start_process_ahead,
    take_process,
)
from tests.processes import has_ended
from tests.waiting import looks

LOOPS = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
LISTS = (
    "{% set ns = namespace(l=[], s='yyyyyyyyyyyyyyyy') %}{% for a in range(90000) %}"
    "{% set ns.s = ns.s ~ 'y' %}{% set ns.l = [ns.l, ns.s ~ ns.s] %}{% endfor %}"
)
HELLO = "Hello {{ name }}"
SHORT = TemplateLimits(seconds=1.5)
SOON_S = 30.0

Start = Callable[[TemplateLimits], TemplateProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def start_process(limits: TemplateLimits) -> TemplateProcess:
            process = TemplateProcess(limits)
            stack.callback(process.close)
            process.start()
            return process

        yield start_process


@pytest.fixture
def process(start: Start) -> TemplateProcess:
    return start(TemplateLimits(seconds=60))


def greeting(process: TemplateProcess) -> str:
    return process.render(HELLO, {"name": "you"})


def wait_until(reached: Callable[[], object]) -> None:
    for _ in looks(SOON_S):
        if reached():
            return
    raise AssertionError("not reached in time")


def runs(pid: int) -> bool:
    return not has_ended(pid)


def computed_s(pid: int) -> float:
    """Return the seconds for which the process has computed; infinity if it has ended."""
    try:
        return psutil.Process(pid).cpu_times().user
    except psutil.NoSuchProcess:
        return float("inf")


def test_template_with_endless_loops_is_stopped_at_the_time_limit_and_the_next_is_rendered(start):
    """Such a template once blocked all streams for 133 s."""
    process = start(SHORT)
    greeting(process)
    started = time.monotonic()
    with pytest.raises(TemplateLimitExceeded, match=r"took longer than 1\.5 s"):
        process.render(LOOPS, {})
    assert 1.4 < time.monotonic() - started < 20  # the loops would take minutes
    assert greeting(process) == "Hello you"


def test_template_that_takes_too_long_to_compile_is_stopped_at_the_time_limit(start):
    with pytest.raises(TemplateLimitExceeded, match="took longer"):
        start(SHORT).render("{{ 10 ** (10 ** 10) }}", {})  # Jinja computes constants when it compiles


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces RLIMIT_AS; macOS has the other test")
@pytest.mark.parametrize("bomb", ["{% set x = 'a' * 10**9 %}", LISTS])
def test_template_that_needs_too_much_memory_is_stopped_by_the_kernels_limit(start, bomb):
    process = start(TemplateLimits(seconds=30))  # the time limit must not be the first on a slow machine
    with pytest.raises(TemplateLimitExceeded, match="needed more than 256 MiB of memory"):
        process.render(bomb, {})
    assert greeting(process) == "Hello you"


@pytest.mark.parametrize("bomb", ["{% set x = 'a' * (2 * 10**9) %}{{ x }}", LISTS])
def test_template_that_needs_too_much_memory_is_stopped_where_the_kernel_has_no_limit(start, bomb):
    process = start(TemplateLimits(seconds=30, memory_bytes=64 * MIB, kernel_enforces_memory=False))
    greeting(process)
    with pytest.raises(TemplateLimitExceeded, match="needed more than 64 MiB of memory"):
        process.render(bomb, {})
    assert greeting(process) == "Hello you"


@pytest.mark.parametrize(
    "text", ["{% for a in range(9000) %}{{ 'x' * 10000 }}{% endfor %}", "{{ 'x' * 20000000 }}"]
)
def test_template_that_renders_too_long_a_text_is_refused(process, text):
    """Earlier, a text of 2 GB ended three engines, which ran out of memory."""
    with pytest.raises(TemplateLimitExceeded, match="made a text of more than 16777216 characters"):
        process.render(text, {})
    assert greeting(process) == "Hello you"


def test_template_text_within_the_limit_is_returned_completely(process):
    name = "é\U0001f600" * 1_000_000
    assert process.render(HELLO, {"name": name}) == f"Hello {name}"


def test_template_with_endless_macro_recursion_is_refused(process):
    with pytest.raises(TemplateRefusal, match="recursion"):
        process.render("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", {})
    assert greeting(process) == "Hello you"


def test_template_error_that_is_long_is_shortened(process):
    with pytest.raises(TemplateRefusal) as caught:
        process.render("{{ raise_exception('no\n way ' * 1000000) }}", {})
    assert str(caught.value).startswith("no way no way")
    assert len(str(caught.value)) <= 500


def test_template_variable_with_a_lone_surrogate_is_rendered(process):
    assert process.render(HELLO, {"name": "\ud83d"}) == "Hello \ud83d"


def test_template_process_killed_while_idle_is_replaced_without_an_error(process):
    greeting(process)
    before = process.pid
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: not runs(before))
    assert greeting(process) == "Hello you"
    assert process.pid != before


def test_template_process_killed_while_rendering_is_replaced_and_renders_again(start):
    process = start(TemplateLimits(seconds=60))
    loops = "{% for a in range(90000) %}{% for b in range(300) %}{% endfor %}{% endfor %}"  # a second or so

    def kill_while_it_renders(pid: int) -> None:
        idle_s = computed_s(pid)
        wait_until(lambda: computed_s(pid) > idle_s + 0.1)
        os.kill(pid, signal.SIGKILL)

    for _ in range(5):
        greeting(process)
        before = process.pid
        thread = threading.Thread(target=kill_while_it_renders, args=(before,))
        thread.start()
        assert process.render(loops + HELLO, {"name": "you"}) == "Hello you"
        thread.join()
        if process.pid != before:
            break  # else the machine was so busy that it had rendered before it was killed
    assert process.pid != before


def test_template_process_suspended_by_sigstop_is_replaced_after_the_time_limit(start):
    process = start(SHORT)
    greeting(process)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(TemplateLimitExceeded, match="took longer"):
        greeting(process)
    assert greeting(process) == "Hello you"


def test_template_process_closed_while_rendering_ends_at_once_and_is_not_started_again(start):
    process = start(TemplateLimits(seconds=60))
    greeting(process)
    pid, errors = process.pid, list[Exception]()

    def render() -> None:
        try:
            process.render(LOOPS, {})
        except TemplateProcessDied as error:
            errors.append(error)

    thread = threading.Thread(target=render)
    thread.start()
    wait_until(lambda: computed_s(pid) > 0.2)
    started = time.monotonic()
    process.close()
    thread.join(SOON_S)
    assert not thread.is_alive() and time.monotonic() - started < SOON_S  # half of the time limit
    assert len(errors) == 1
    assert not runs(pid) and process.pid is None
    with pytest.raises(TemplateProcessDied, match="unloaded"):
        greeting(process)


def test_template_process_ignores_sigterm_and_sigint(process):
    """The engine drains its requests after SIGTERM, and some of them still need their prompt."""
    greeting(process)
    before = process.pid
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(before, number)
    assert greeting(process) == "Hello you"
    assert process.pid == before


def test_template_process_started_in_advance_is_given_to_one_model_only():
    start_process_ahead()
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(contextlib.closing(take_process())) for _ in range(2))
        assert first is not second
        assert greeting(first) == greeting(second) == "Hello you"
        assert first.pid != second.pid


OWNER = """
import sys, threading
from mlx_server.engine.generation.prompts.templates.limits import TemplateLimits
from mlx_server.engine.generation.prompts.templates.process import (
    TemplateProcess,
    start_process_ahead,
    take_process,
)
process = TemplateProcess(TemplateLimits(seconds=1.0))
process.render("", {})
print(process.pid, flush=True)
process.render(sys.argv[1], {}) if sys.argv[1] else threading.Event().wait()
"""


@pytest.mark.parametrize("template", ["", LOOPS], ids=["idle", "rendering"])
def test_template_process_ends_when_its_owner_is_killed(template):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, template], stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    with owner.stdout:
        pid = int(owner.stdout.readline())
        if template:
            wait_until(lambda: computed_s(pid) > 0.2)
        owner.kill()
        owner.wait()
    wait_until(lambda: not runs(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_template_process_inherits_no_open_file_and_no_secret(start, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with Path(__file__).open() as file:
        os.set_inheritable(file.fileno(), True)
        process = start(TemplateLimits())
        greeting(process)
        folder = Path(f"/proc/{process.pid}")
        assert "secret" not in (folder / "environ").read_text()
        assert sorted(os.listdir(folder / "fd")) == ["0", "1", "2"]
