"""What a process is called, and what of its command line is its own."""

from __future__ import annotations

import pytest

from vestal.platform.processes.process_snapshot import ProcessSnapshot

FRAMEWORK = "/Library/Frameworks/Python.framework/Versions/3.13/Resources/Python.app/Contents/MacOS/Python"


@pytest.mark.parametrize("interpreter", [FRAMEWORK, "/usr/bin/python3.13", "Python3", "/bin/sh"])
def test_process_of_a_script_has_the_name_of_the_script_and_not_that_of_its_interpreter(interpreter: str):
    """On macOS, every script under Homebrew's or python.org's Python was once called "Python"."""
    script = ProcessSnapshot(5, arguments=(interpreter, "/opt/homebrew/bin/litellm", "--port", "11434"))
    assert (script.program, script.words[1:]) == ("litellm", ("--port", "11434"))


@pytest.mark.parametrize(
    "arguments",
    [(FRAMEWORK,), (FRAMEWORK, "-m", "litellm"), ("/usr/bin/ollama", "serve"), ()],
)
def test_words_of_a_process_that_runs_no_script_are_its_whole_command_line(arguments: tuple[str, ...]):
    assert ProcessSnapshot(5, arguments=arguments).words == arguments
