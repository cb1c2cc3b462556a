"""`vestal models rm` while some server answers on the port of the MLX server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from mlx_server.model_store import layout
from tests.services.http_servers import JsonAnswers, serving
from tests.services.in_process import vestal
from vestal.supervision import write_pid_file
from vestal.supervision.processes.identity import identify

NAME = "damaged:latest"


class Server(JsonAnswers):
    """Answers as a gateway in this process that has the model too, and keeps it. A request uses the model."""

    deleted: list[str]

    def do_GET(self) -> None:
        self.answer({"pid": os.getpid(), "requests": [{"model": NAME}] if self.server_is_busy else []})

    def do_DELETE(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.deleted.append(json.loads(body)["model"])
        self.answer({})

    server_is_busy = False


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Install a model, and return its folder."""
    folder = tmp_path / "models" / "damaged__latest"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"cut")
    layout.write_manifest(folder, NAME, {"source": "hf:org/damaged"})
    return folder


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    monkeypatch.setattr(Server, "deleted", [], raising=False)
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Server)) as server:
        port = str(server.server_address[1])
        yield {"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path), "VESTAL_MLX_PORT": port}


def _is_this_homes(home: Path) -> None:
    me = identify(os.getpid())
    assert me is not None
    write_pid_file(home / "run" / "mlx_server.json", me)


def test_models_rm_command_deletes_nothing_from_a_server_of_another_home(
    tmp_path: Path, env: dict[str, str], model: Path, monkeypatch: pytest.MonkeyPatch
):
    """The other home, or Ollama, lost its model; this home's stayed, and was said to be removed."""
    monkeypatch.setattr(Server, "server_is_busy", True)
    removed = vestal(("models", "rm", NAME, "--yes"), env)
    assert removed.returncode == 0, removed.stderr
    assert f"{NAME}: removed" in removed.stdout
    assert Server.deleted == []
    assert not model.exists()


def test_models_rm_command_deletes_through_the_server_of_its_home_and_then_deletes_remaining_files(
    tmp_path: Path, env: dict[str, str], model: Path
):
    _is_this_homes(tmp_path)
    removed = vestal(("models", "rm", NAME, "--yes"), env)
    assert removed.returncode == 0, removed.stderr
    assert Server.deleted == [NAME]
    assert not model.exists()


def test_models_rm_command_refuses_a_model_that_a_request_of_its_home_uses(
    tmp_path: Path, env: dict[str, str], model: Path, monkeypatch: pytest.MonkeyPatch
):
    _is_this_homes(tmp_path)
    monkeypatch.setattr(Server, "server_is_busy", True)
    refused = vestal(("models", "rm", NAME, "--yes"), env)
    assert refused.returncode == 1
    assert f"1 request uses {NAME} now" in refused.stderr
    assert model.exists()
