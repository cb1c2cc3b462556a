"""Compared programs (peers): environments, processes that die, versions, and formats of the model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import environments, every_peer, models, ollama
from benchmarks.peers.environments import REQUIREMENTS, Environment, InstallError, parse_version
from benchmarks.peers.models import BenchModel
from benchmarks.peers.process import PeerFailed, RunningProcess, last_words
from benchmarks.peers.program_peer import SENT_MODEL, Launch, ProgramPeer
from benchmarks.peers.serving import SERVING_PEERS
from benchmarks.peers.supervisors import SUPERVISOR_PEERS

MODEL = BenchModel(Path("model"))


def program(text: str, **more: object) -> ProgramPeer:
    """Return a peer that is a Python program."""
    command = lambda launch: [sys.executable, "-c", text, str(launch.port)]  # noqa: E731
    given = {"has_mlx": False, **more}
    return ProgramPeer("fake", lambda: None, lambda: "1", command, **given)  # type: ignore[arg-type]


# --- processes ---


def test_compared_program_that_dies_at_its_start_fails_at_once_with_its_last_error():
    with pytest.raises(PeerFailed) as caught:
        program("import sys; print('loading'); raise ValueError('no such model')").start(MODEL)
    assert str(caught.value) == (
        "fake ended before it answered. It ended with exit code 1; its log ends: ValueError: no such model"
    )


def test_compared_server_whose_executable_is_missing_fails_and_names_the_path():
    peer = ProgramPeer("fake", lambda: None, lambda: "", lambda launch: ["/nowhere/fake"], has_mlx=False)
    with pytest.raises(PeerFailed, match=r"fake cannot be started: .*/nowhere/fake"):
        peer.start(MODEL)


def test_compared_server_without_a_model_in_a_format_that_it_needs_is_not_started():
    with pytest.raises(PeerFailed, match="fake needs a model with gguf"):
        program("raise SystemExit", needs=("gguf",)).start(MODEL)


def test_failure_message_of_a_killed_compared_server_names_sigkill_and_the_server_can_be_restarted():
    serves = (
        "import sys, http.server as h\n"
        "class S(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers()\n"
        "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), S).serve_forever()"
    )
    with program(serves).start(MODEL) as peer:
        first = peer.pid
        peer.kill()
        assert not peer.is_alive
        assert peer.last_words().startswith("It was ended by SIGKILL; its log ends: ")
        peer.restart_after_kill()
        assert peer.is_alive
        assert peer.pid != first


def test_compared_program_that_never_answers_is_killed_after_its_start_timeout():
    asleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = RunningProcess("fake", asleep, ready=lambda: False, env={}, start_timeout_s=0.2)
    with pytest.raises(PeerFailed, match=r"does not answer within 0.2 s. It still runs; its log is empty."):
        process.start()
    assert process.returncode == -9
    process.close()
    assert not process.folder.exists()


@pytest.mark.parametrize(
    ("log", "returncode", "expected"),
    [
        ("", -6, "It was ended by SIGABRT; its log is empty."),
        ("one\ntwo\n\n", 3, "It ended with exit code 3; its log ends: two"),
        (
            "Traceback …\nmlx.core.OutOfMemoryError: 9 GB\nwarnings.warn(\n",
            1,
            "It ended with exit code 1; its log ends: mlx.core.OutOfMemoryError: 9 GB",
        ),
        ("x" * 1000, None, "It still runs; its log ends: " + "x" * 300),
    ],
)
def test_failure_message_of_a_compared_program_gives_its_exit_status_and_last_error_or_log_line(
    log: str, returncode: int | None, expected: str
):
    assert last_words(log, returncode) == expected


# --- environments ---


def filled(environment: Environment, say: environments.Say) -> None:
    target = environment.folder / environment.program
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("#!/bin/sh\necho This is Fake version 5.33.0\n")
    target.chmod(0o700)


def refused(environment: Environment, say: environments.Say) -> None:
    environments.run([sys.executable, "-c", "import sys; sys.exit('ERROR: 403 Forbidden')"], say)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fake.txt").write_text("fake\n")
    monkeypatch.setattr(environments, "PEERS", tmp_path / "peers")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    return tmp_path


def test_environment_of_a_compared_program_becomes_outdated_when_its_pinned_versions_change(folder: Path):
    fake = Environment("fake", "bin/fake", ("fake.txt",), filled)
    assert fake.why_not() == "It is not installed; run `python -m benchmarks.peers install fake`."
    fake.install(lambda line: None)
    assert (fake.why_not(), fake.version()) == (None, "5.33.0")
    (folder / "fake.txt").write_text("fake 2\n")
    assert "in other versions than those pinned now" in str(fake.why_not())
    fake.remove()
    assert (fake.path(), fake.version()) == (None, "")


def test_environment_whose_installation_failed_gives_that_failure_as_the_reason_it_is_unusable(folder: Path):
    fake = Environment("fake", "bin/fake", ("fake.txt",), refused)
    with pytest.raises(InstallError):
        fake.install(lambda line: None)
    assert str(fake.why_not()).startswith("Its installation failed: `python")
    assert str(fake.why_not()).endswith("failed: ERROR: 403 Forbidden")


def test_environment_whose_installation_is_interrupted_does_not_count_as_installed(folder: Path):
    def interrupted(environment: Environment, say: environments.Say) -> None:
        filled(environment, say)
        raise KeyboardInterrupt

    fake = Environment("fake", "bin/fake", ("fake.txt",), interrupted)
    with pytest.raises(KeyboardInterrupt):
        fake.install(lambda line: None)
    assert str(fake.why_not()).startswith("It is not installed")


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("This is Monit version 5.33.0\nBuilt with ssl", "5.33.0"),
        ("Warning: could not connect to a running Ollama instance\nclient version is 0.32.1", "0.32.1"),
        ("Process Compose\nVersion:\tv1.122.0\nCommit: 23b0aca", "1.122.0"),
        ("7.0.4\n", "7.0.4"),
        ("0.10.24-rc1", "0.10.24-rc1"),
        ("usage: fake [options]", ""),
    ],
)
def test_version_of_a_compared_program_is_the_first_version_number_that_it_prints(printed: str, version: str):
    assert parse_version(printed) == version


def test_every_benchmark_environment_pins_its_versions_and_names_no_package_index():
    assert len(environments.ENVIRONMENTS) == 9
    for environment in environments.ENVIRONMENTS.values():
        for name in environment.pins:
            text = (REQUIREMENTS / name).read_text()
            assert "--index" not in text
            assert '"resolved"' not in text
            assert "://" not in text or name.endswith("package-lock.json")  # where packages ask for money
    for name in ("vllm-mlx", "rapid-mlx", "fusion-mlx", "llama-cpp-python", "supervisord", "circus"):
        lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
        assert all("==" in line for line in lines), name


def test_every_compared_server_and_supervisor_has_an_adapter():
    serving = "mlx_lm.server mlx_lm.server+draft vllm-mlx rapid-mlx fusion-mlx llama-cpp-python ollama"
    assert [peer.name for peer in SERVING_PEERS] == serving.split()
    supervisors = "supervisord circus pm2 monit process-compose"
    assert [peer.name for peer in SUPERVISOR_PEERS] == supervisors.split()
    assert every_peer() == (*SERVING_PEERS, *SUPERVISOR_PEERS)


def test_compared_ollama_is_found_by_its_environment_variable_and_else_reported_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(ollama.VARIABLE, raising=False)
    assert "There is no `ollama` on the PATH" in str(ollama.why_not())
    own = tmp_path / "built" / "ollama"
    own.parent.mkdir()
    own.write_text("")
    monkeypatch.setenv(ollama.VARIABLE, str(own))
    assert (ollama.program(), ollama.why_not()) == (str(own), None)


def test_compared_ollama_gets_a_port_and_a_models_folder_of_its_own(tmp_path: Path):
    env = ollama.environment(Launch(MODEL, 4321, tmp_path))
    assert env["OLLAMA_HOST"] == "127.0.0.1:4321"
    assert env["OLLAMA_MODELS"] == str(tmp_path / "models")


def test_fusion_mlx_as_a_compared_server_gets_its_own_models_folder_that_contains_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setattr(Environment, "path", lambda self: tmp_path / self.name)
    [peer] = [peer for peer in SERVING_PEERS if peer.name == "fusion-mlx"]
    assert isinstance(peer, ProgramPeer)
    command = peer.command(Launch(BenchModel(tmp_path / "model"), 4321, tmp_path))
    folder = tmp_path / ".fusion-mlx" / "models" / SENT_MODEL
    assert str(folder) in command
    assert (folder / "config.json").read_text() == "{}"


# --- the model ---


def test_attention_rows_interleaved_for_gguf_are_put_back_in_order_by_the_gguf_reader():
    from mlx_server.model_store.gguf.weights import _row_order

    rows = np.arange(24 * 3, dtype=np.float32).reshape(24, 3)
    assert np.array_equal(models.interleaved(rows, 3)[_row_order(24, 3)], rows)


def test_draft_model_for_benchmarks_has_the_first_layers_of_its_model(tmp_path: Path):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 3}))
    (folder / "tokenizer.json").write_text("{}")
    names = ["model.embed_tokens.weight", *(f"model.layers.{n}.mlp.weight" for n in range(3))]
    save_file({name: np.ones(2, np.float32) for name in names}, folder / "model.safetensors")
    models.write_draft(folder, tmp_path / "draft", 2)
    assert sorted(load_file(tmp_path / "draft" / "model.safetensors")) == sorted(names[:3])
    assert json.loads((tmp_path / "draft" / "config.json").read_text()) == {"num_hidden_layers": 2}
    assert (tmp_path / "draft" / "tokenizer.json").exists()
