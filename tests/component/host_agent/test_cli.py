"""The command `vestal`: its exit codes, and one sentence for each mistake."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import in_process

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def vestal(home: Path, free_port: Callable[[], int]) -> Vestal:
    """Return a function that runs `vestal` with a home and ports of its own, if nothing runs."""
    names = ("VESTAL_MLX_PORT", "VESTAL_AGENT_PORT", "VESTAL_ORCHESTRATOR_PORT")
    foreign = ("VESTAL_", "MLX_", "OLLAMA_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    own = {name: str(free_port()) for name in names} | {
        "VESTAL_HOME": str(home),
        "VESTAL_OLLAMA__MANAGE": "off",
    }

    return Vestal(clean | own)


class Vestal:
    """Runs `vestal` in one environment."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, **env) as process:
            out, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, errors)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return self._start(arguments, env, subprocess.DEVNULL, subprocess.PIPE)

    def start_on(self, terminal: int, *arguments: str) -> subprocess.Popen[str]:
        """Run the command on a terminal, which is its input and its output."""
        return self._start(arguments, {"TERM": "xterm"}, terminal, terminal)

    def _start(
        self, arguments: tuple[str, ...], env: dict[str, str], stdin: int, stdout: int
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "host_agent.cli.main", *arguments]
        env = self.env | env
        for of_the_test_run in ("COLUMNS", "LINES"):  # they would hide the terminal's own size
            env.pop(of_the_test_run, None)
        return subprocess.Popen(
            command,
            env=env,
            cwd=REPO,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """Return stderr, which must be one line."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("vestal: ")
    return lines[0]


def test_status_with_nothing_running_exits_with_2(vestal):
    done = vestal("status")
    assert done.returncode == 2
    assert "vestal up" in done.stdout
    assert json.loads(vestal("status", "--json").stdout)["healthy"] is False


def test_wrong_configuration_is_one_line_and_exit_code_78(vestal, home: Path):
    (home / "bad.yaml").write_text("mlx:\n  prot: 1\n")
    done = vestal("up", VESTAL_CONFIG=str(home / "bad.yaml"))
    assert done.returncode == 78
    assert "bad.yaml:2: unknown key mlx.prot; did you mean port?" in sentence(done)
    assert not (home / "run").exists(), "nothing is written"


def test_up_with_a_port_in_use_names_the_process_and_starts_nothing(vestal, home: Path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = vestal("up", VESTAL_MLX_PORT=str(port))
        found = json.loads(vestal("doctor", "--json", VESTAL_MLX_PORT=str(port)).stdout)
    assert done.returncode == 75
    assert f"Port {port} is held by" in sentence(done)
    assert f"(PID {os.getpid()}" in sentence(done)
    assert "VESTAL_MLX_PORT" in sentence(done)
    assert list((home / "run").glob("*.json")) == []
    faults = [finding for finding in found["findings"] if finding["level"] == "fault"]
    assert [fault["name"] for fault in faults] == ["port_in_use"]
    assert "kill" in faults[0]["remedy"]


def test_up_with_an_unknown_model_names_it_and_starts_nothing(vestal, home: Path):
    done = vestal("up", MLX_PRELOAD_MODELS="no-such-model")
    assert done.returncode == 78
    assert "no-such-model" in sentence(done)
    assert "Nothing was started" in sentence(done)
    assert list((home / "run").glob("*.json")) == []


def test_up_reports_all_faults_at_once_each_with_its_remedy(vestal, home: Path):
    """Earlier, `up` reported one fault at a time, so a person found the next one only after correcting the
    first.
    """
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        done = vestal(
            "up",
            VESTAL_MLX_PORT=str(held.getsockname()[1]),
            MLX_PRELOAD_MODELS="no-such-model,mlx-community/Qwen3-4B-4bit",
            HF_ENDPOINT="http://127.0.0.1:1",
        )
    first, *rest = done.stderr.splitlines()
    assert (done.returncode, first) == (78, "vestal: Nothing was started; 3 things are wrong:")
    for words in ("no-such-model", "127.0.0.1:1, which does not answer", "set VESTAL_MLX_PORT"):
        assert [words in line for line in rest].count(True) == 1, done.stderr
    assert not home.exists() or list(home.iterdir()) == [], "nothing is written"


def test_mistake_in_the_agents_file_is_named_with_its_line_by_up_and_the_doctor(vestal, home: Path):
    """The orchestrator ended with 78 again and again, and nobody said why."""
    broken = home / "agents.yaml"
    broken.write_text("agents:\n  reader:\n    promt: Read.\n")
    named = f"{broken}:3: agents.reader.promt is an unknown key"
    done = vestal("up", VESTAL_ORCHESTRATOR__AGENTS=str(broken))
    assert done.returncode == 78
    assert named in sentence(done)
    assert not (home / "run").exists(), "nothing is written"
    found = json.loads(vestal("doctor", "--json", VESTAL_ORCHESTRATOR__AGENTS=str(broken)).stdout)
    (fault,) = [finding for finding in found["findings"] if finding["name"] == "configuration"]
    assert (fault["level"], named in fault["sentence"]) == ("fault", True)


def test_down_with_nothing_running_succeeds(vestal):
    done = vestal("down")
    assert (done.returncode, done.stdout.strip()) == (0, "nothing was running")


def test_home_that_cannot_be_written_is_one_sentence_and_exit_code_74(vestal, home: Path):
    (home / "file").write_text("")
    done = vestal("up", VESTAL_HOME=str(home / "file" / "below"))
    assert done.returncode == 74
    assert str(home / "file") in sentence(done)


def test_token_makes_and_prints_the_token(vestal, home: Path):
    assert vestal("token").stdout == (home / "token").read_text()


def test_logs_of_an_unknown_service_lists_the_services(vestal):
    done = vestal("logs", "foo")
    assert done.returncode == 64
    assert "mlx_engine" in sentence(done)


def test_logs_prints_the_last_lines_with_their_service(vestal, home: Path):
    (home / "logs").mkdir()
    (home / "logs" / "engine.log").write_text("one\ntwo\nthree\n")
    done = vestal("logs", "-n", "2", "mlx_engine")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["mlx_engine", "two"],
        ["mlx_engine", "three"],
    ]
    assert json.loads(vestal("logs", "--json", "-n", "1").stdout)["line"] == "three"
    assert vestal("logs", "--grep", "one").stdout.split() == ["mlx_engine", "one"]


@pytest.mark.parametrize("mistake", [("--since", "soon"), ("--grep", "("), ("--lines", "-1")])
def test_logs_with_an_invalid_option_value_fails_with_one_sentence(vestal, mistake: tuple[str, str]):
    done = vestal("logs", *mistake)
    assert done.returncode == 64
    assert mistake[1] in sentence(done)


def test_recover_dry_run_without_an_agent_shows_what_it_would_do(vestal, home: Path):
    done = vestal("recover", "--dry-run")
    assert done.returncode == 1
    assert "would start it" in done.stdout
    assert not (home / "run").exists()


def test_cache_clear_keeps_the_links_that_the_engine_needs(vestal, home: Path):
    for folder in ("blas", "kv"):
        (home / "cache" / folder).mkdir(parents=True)
        (home / "cache" / folder / "file").write_bytes(b"x" * 1024)
    done = vestal("cache", "clear")
    assert done.returncode == 0
    assert [path.name for path in (home / "cache").iterdir()] == ["blas"]


def test_install_dry_run_writes_nothing(vestal, home: Path):
    done = vestal("install", "--dry-run", XDG_CONFIG_HOME=str(home / "config"))
    assert done.returncode == 0, done.stderr
    assert "would write" in done.stdout
    assert not (home / "config").exists()


def test_completion_in_bash_completes_commands_services_and_installed_models(vestal, home: Path):
    (home / "models" / "qwen3__8b").mkdir(parents=True)
    (home / "completion").write_text(vestal("completion", "bash").stdout)

    def completed(*words: str) -> str:
        program = (
            f"source {home}/completion; COMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words)}; "
            f"_shtab_vestal vestal '' {words[-1]}; echo ${{COMPREPLY[@]}}"
        )
        return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout

    assert "status" in completed("vestal").split()
    assert "mlx_engine" in completed("vestal", "logs").split()
    assert completed("vestal", "chat").split() == ["qwen3:8b"]


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("ORCHESTRATOR", ("search", "fox")),
        ("MLX", ("chat", "smollm2:135m", "Hello?")),
        ("AGENT", ("recover", "--dry-run")),
    ],
)
def test_interrupted_command_prints_one_sentence_about_what_is_left_unfinished(
    vestal, home: Path, service: str, command: tuple[str, ...]
):
    """Earlier, Ctrl-C printed nothing in most commands, and was lost during an import."""
    home.mkdir(exist_ok=True)
    (home / "token").write_text("t")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts connections, never answers
        silent.settimeout(30)
        port = str(silent.getsockname()[1])
        with vestal.start(*command, **{f"VESTAL_{service}_PORT": port}) as started:
            try:
                with silent.accept()[0]:
                    started.send_signal(signal.SIGINT)
                    _, errors = started.communicate(timeout=30)
            finally:
                started.kill()
    assert started.returncode == 130
    assert errors.startswith("vestal: Interrupted. ") and len(errors.splitlines()) == 1


@pytest.mark.parametrize("command", [("demo",), ("top",), ("chat",), ("chat", "smollm2:135m", "Hello?")])
def test_command_that_needs_the_mlx_server_names_the_remedy_if_there_is_none(
    vestal, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello?"))
    done = in_process.vestal(command, vestal.env)
    assert done.returncode == 69
    assert sentence(done).endswith("`vestal status` says why, `vestal up` starts it.")


def test_chat_from_an_empty_pipe_is_refused(vestal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    done = in_process.vestal(("chat",), vestal.env)
    assert (done.returncode, done.stdout) == (64, "")
    assert "There is no question" in sentence(done)


def test_live_screen_follows_a_resize_and_restores_the_terminal_at_its_end(vestal, home: Path):
    (home / "token").write_text("t")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 100, 0, 0))
    with vestal.start_on(theirs, "status", "--watch") as watch:
        try:
            shown = until(ours, "vestal up")
            assert "\x1b[?1049h" in shown
            until(ours, "Ctrl-C leaves.")
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
            watch.send_signal(signal.SIGWINCH)
            frames = (until(ours, "Ctrl-C leaves.") for _ in range(20))  # some were drawn before the resize
            assert any(widest_line(frame) <= 40 for frame in frames)
            watch.send_signal(signal.SIGINT)
            assert "\x1b[?1049l" in until(ours, "\x1b[?1049l")
            assert watch.wait(timeout=20) == 0
            assert termios.tcgetattr(theirs)[3] & termios.ECHO
        finally:
            watch.kill()
            os.close(ours)
            os.close(theirs)


def widest_line(screen: str) -> int:
    return max(len(line) for line in re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", screen).split("\r\n"))


def until(terminal: int, text: str) -> str:
    """Return the terminal output up to and including `text`."""
    shown = ""
    while text not in shown:
        assert select.select([terminal], [], [], 30)[0], shown
        shown += os.read(terminal, 65536).decode(errors="replace")
    return shown
