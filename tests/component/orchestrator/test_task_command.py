"""The command `vestal task` against a real orchestrator."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.component.orchestrator.conftest import TOKEN, Child, Orchestrator, StandIn, wait_until

Make = Callable[..., Orchestrator]


def command(one: Orchestrator, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "host_agent.cli.main", "task", *arguments]


def vestal(one: Orchestrator, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    one.home.mkdir(exist_ok=True)
    (one.home / "token").write_text(TOKEN)
    return subprocess.run(
        command(one, *arguments),
        env=one.env,
        cwd=one.repo,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_task_command_prints_progress_and_the_answer_without_its_escape_sequences(
    orchestrator: Make, llm: StandIn
):
    one = orchestrator(MLX_API_URL=llm.url).start()
    llm.control(say={"You are": "An answer \x1b[2J\x1b]0;with orders\x07 in it"})
    done = vestal(one, "what is it?")
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout == "An answer [2J]0;with orders in it\n"
    )  # a terminal would execute the escape sequences
    assert "answer:lead: done (" in done.stderr
    answer = json.loads(vestal(one, "-", "--json", stdin="what is it now?").stdout)
    assert (answer["state"], answer["goal"]) == ("done", "what is it now?")
    assert "what is it now?" in vestal(one, "--list").stdout


def test_task_command_with_bad_input_prints_one_sentence_and_exits_64(orchestrator: Make, llm: StandIn):
    one = orchestrator(MLX_API_URL=llm.url).start()
    for arguments, stdin, words in (
        (("x", "--agent", "nobody"), "", "There is no agent 'nobody'; there are: lead"),
        ((" ",), "", "There is no goal"),
        (("-",), "x" * 10_000_000, "over 16000 characters"),
        (("--follow", "../cycles"), "", "is not the id of a task"),
        (("--cancel", "5f1d7e0a-6d0c-4bb5-9d3b-1d7f8c2f6a55"), "", "There is no task"),
    ):
        done = vestal(one, *arguments, stdin=stdin)
        assert done.returncode == 64, (arguments, done.stderr)
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    one.child.end()  # type: ignore[union-attr]
    gone = vestal(one, "x")
    assert gone.returncode == 69
    assert "vestal up" in gone.stderr


def test_task_command_interrupted_by_ctrl_c_leaves_the_task_running(orchestrator: Make, llm: StandIn):
    one = orchestrator(MLX_API_URL=llm.url).start()
    llm.control(hold=True)
    task_id = vestal(one, "take your time", "--detach").stdout.strip()
    follower = Child(command(one, "--follow", task_id), one.env, one.repo, one.tmp / "follower.log")
    wait_until("it follows", lambda: "answer:lead: at work" in follower.said())
    assert follower.end(signal.SIGINT) == 130
    assert f"vestal task --follow {task_id}" in follower.said()
    assert one.task(task_id)["state"] == "running"
    cancelled = vestal(one, "--cancel", task_id)
    assert (cancelled.returncode, cancelled.stdout) == (0, f"task {task_id}: cancelled\n")
    assert vestal(one, "--follow", task_id).returncode == 2


@pytest.mark.parametrize("number", [signal.SIGKILL])
def test_task_command_whose_orchestrator_is_killed_waits_for_its_restart(
    orchestrator: Make, llm: StandIn, tmp_path: Path, number: int
):
    one = orchestrator(MLX_API_URL=llm.url).start()
    llm.control(hold=True)
    (one.home / "token").write_text(TOKEN)
    follower = Child(command(one, "survive with me"), one.env, one.repo, one.tmp / "follower.log")
    wait_until("it is asked", lambda: llm.calls("/api/chat"))
    assert one.child
    one.child.end(number)
    wait_until("it waits", lambda: "the orchestrator is away" in follower.said())
    llm.control(hold=False)
    one.start()
    assert follower.process.wait(timeout=60) == 0
    assert "The answer to: survive with me" in follower.said()
