"""`vestal models` against a hub on loopback: search, info, pull, list, rm, and what it says without a hub."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from mlx_server.model_store import layout
from tests.services.fake_hub import FakeHub, FakeRepository, fake_hub, model_files
from tests.services.http_servers import JsonAnswers, serving
from tests.services.in_process import vestal as vestal_in_process
from tests.waiting import looks
from vestal.supervision import write_pid_file
from vestal.supervision.processes.identity import identify

MIB = 1024**2


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with fake_hub() as server:
        server.repositories = {
            "org/chat-4bit": FakeRepository(
                model_files(2 * MIB, max_position_embeddings=2048),
                listing={
                    "tags": ["mlx", "safetensors", "license:mit"],
                    "downloads": 1200,
                    "pipeline_tag": "text-generation",
                    "safetensors": {"parameters": {"F16": MIB}, "total": MIB},
                },
            ),
            "org/pictures-chat": FakeRepository(
                {}, listing={"tags": ["mlx", "safetensors"], "pipeline_tag": "text-to-image"}
            ),
            "org/chat-embedder": FakeRepository(
                {},
                listing={
                    "gated": "manual",
                    "tags": ["safetensors"],
                    "pipeline_tag": "sentence-similarity",
                    "config": {"model_type": "bert", "architectures": ["BertModel"]},
                },
            ),
            "org/chat-odd-embedder": FakeRepository(
                {},
                listing={
                    "tags": ["safetensors"],
                    "pipeline_tag": "sentence-similarity",
                    "config": {"model_type": "albert", "architectures": ["AlbertModel"]},
                },
            ),
            "org/huge": FakeRepository(model_files(16 * MIB)),
        }
        yield server


class Vestal:
    """Runs `vestal` with a home of its own, and no MLX server."""

    def __init__(self, home: Path, endpoint: str, unused_port: int) -> None:
        self.home = home
        self.env = os.environ | {
            "VESTAL_HOME": str(home),
            "VESTAL_MLX_PORT": str(unused_port),
            "VESTAL_MLX__MEMORY_LIMIT": "150m",
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
        }
        self.env.pop("HF_TOKEN", None)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "host_agent.cli.main", *arguments],
            env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=115)
        assert "Traceback" not in errors, errors
        return subprocess.CompletedProcess(arguments, process.returncode, out, errors)


@pytest.fixture
def vestal(tmp_path: Path, hub: FakeHub, free_port: Callable[[], int]) -> Vestal:
    return Vestal(tmp_path / "home", hub.url, free_port())


@pytest.mark.timeout(300)  # twelve commands, one after the other
def test_models_command_searches_inspects_pulls_lists_and_removes_a_model(tmp_path: Path, vestal: Vestal):
    found = json.loads(vestal.run("models", "search", "chat", "--json").stdout)["models"]
    assert [(each["name"], each["kind"]) for each in found] == [
        ("org/chat-4bit", "generate"),
        ("org/chat-embedder", "embed"),
    ]
    assert (found[0]["downloads"], found[0]["bytes"], found[0]["license"]) == (1200, 2 * MIB, "mit")
    assert found[0]["vestal"]["fits"] and found[1]["vestal"] is None and found[1]["gated"]

    before = json.loads(vestal.run("models", "info", "org/chat-4bit", "--json").stdout)
    assert (before["installed"], before["kind"], before["context_tokens"]) == (False, "generate", 2048)
    assert (before["license"], before["downloads"], before["has_template"]) == ("mit", 7, False)
    assert before["memory"]["fits"] and before["memory"]["contexts"][-1]["context_tokens"] == 2048
    assert not list((tmp_path / "home" / "hf").rglob("*.safetensors"))

    pulled = vestal.run("models", "pull", "org/chat-4bit")
    assert pulled.returncode == 0, pulled.stderr
    lines = pulled.stdout.splitlines()
    assert (
        f"org/chat-4bit:latest: org/chat-4bit {before['memory']['sentence']}. 2.0 MiB to download." in lines
    )
    assert lines[-1] == "org/chat-4bit:latest: Ready."

    damaged = tmp_path / "home" / "models" / "damaged__latest"
    damaged.mkdir()
    (damaged / "config.json").write_text("{}")
    (damaged / "model.safetensors").write_bytes(b"cut")
    layout.write_manifest(damaged, "damaged:latest", {"source": "hf:org/damaged"})
    shown = vestal.run("models", "info", "damaged")
    assert (shown.returncode, len(shown.stderr.splitlines())) == (1, 1), shown.stderr
    assert "damaged:latest is broken: " in shown.stderr and "cut off: 3 bytes" in shown.stderr

    everything = json.loads(vestal.run("models", "list", "--json").stdout)
    assert [each["name"] for each in everything["broken"]] == ["damaged:latest"]
    (listed,) = everything["models"]
    assert listed["name"] == "org/chat-4bit:latest"
    after = json.loads(vestal.run("models", "info", "org/chat-4bit", "--json").stdout)
    assert after["installed"] and len(after["digest"]) == 64
    assert after["license"] == "mit"
    assert after["memory"] == before["memory"], "the forecast before the download is the one after it"
    assert {file["name"] for file in after["files"]} == {file["name"] for file in before["files"]}
    assert listed["vestal"]["needed_bytes"] == after["memory"]["needed_bytes"]

    removed = vestal.run("models", "rm", "org/chat-4bit")
    assert removed.returncode == 0, removed.stderr
    assert "`hf cache rm model/org/chat-4bit`" in removed.stdout
    gone = vestal.run("models", "rm", "org/chat-4bit")
    assert gone.returncode == 1
    assert "org/chat-4bit is not installed" in gone.stderr


def test_pull_command_without_a_terminal_refuses_a_model_too_large_for_memory_instead_of_asking(
    vestal: Vestal,
):
    refused = vestal.run("models", "pull", "org/huge")
    assert refused.returncode == 1
    assert "Model org/huge:latest does not fit: it needs" in refused.stderr
    assert "`vestal models pull --force org/huge:latest`" in refused.stderr


def test_pull_interrupted_by_ctrl_c_keeps_the_partial_download_and_exits_with_130(
    vestal: Vestal, hub: FakeHub
):
    hub.lasts_s = 60.0
    process = vestal.start("models", "pull", "--yes", "org/huge")
    for _ in looks(60):
        if any(path.stat().st_size for path in vestal.home.rglob("*.vestal-incomplete")):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    hub.lasts_s = 0.0
    assert process.returncode == 130
    assert errors == "vestal: Interrupted. What was downloaded is kept; the same command fetches the rest.\n"
    assert any(path.stat().st_size for path in vestal.home.rglob("*.vestal-incomplete"))


class Gateway(ThreadingHTTPServer):
    """An MLX server in this process, whose requests use the models in `in_use`. It records what it is asked
    to delete.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), GatewayAnswers)
        self.in_use: list[str] = []
        self.deleted: list[str] = []


class GatewayAnswers(JsonAnswers):
    server: Gateway

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer({"status": "ok", "pid": os.getpid()})
            return
        self.answer({"requests": [{"id": "1", "model": name} for name in self.server.in_use]})

    def do_DELETE(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.deleted.append(body["model"])
        self.answer({})


def test_models_rm_is_refused_while_requests_use_the_model_and_else_deletes_through_the_server(
    tmp_path: Path,
):
    store = tmp_path / "models"
    for name, more in (("mine:latest", {}), ("made:latest", {"preset": {"parent": "mine:latest"}})):
        folder = layout.installed_path(store, name)
        folder.mkdir(parents=True)
        for file, content in model_files().items():
            if more:
                (folder / file).hardlink_to(layout.installed_path(store, "mine:latest") / file)
            else:
                (folder / file).write_bytes(content)
        layout.write_manifest(folder, name, {"source": "hf:org/mine", **more})
    own = identify(os.getpid())
    assert own is not None
    write_pid_file(tmp_path / "run" / "mlx_server.json", own)
    server = Gateway()
    env = {"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path), "VESTAL_MLX_PORT": str(server.server_port)}
    with serving(server):
        server.in_use = ["mine:latest", "mine:latest"]
        refused = vestal_in_process(("models", "rm", "mine"), env)
        assert (refused.returncode, server.deleted) == (1, [])
        assert "2 requests use mine:latest now" in refused.stderr
        server.in_use = []
        removed = vestal_in_process(("models", "rm", "mine"), env)
        assert (removed.returncode, server.deleted) == (0, ["mine:latest"]), removed.stderr
        assert "Its weights are shared by made:latest, which keeps them." in removed.stdout


def test_models_search_without_a_reachable_hub_prints_one_sentence_with_the_remedy(vestal: Vestal):
    with socket.socket() as closed:  # bound, never listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        vestal.env["HF_ENDPOINT"] = f"http://{address}"
        done = vestal.run("models", "search", "qwen")
    assert done.returncode == 1
    assert address in done.stderr and "HF_ENDPOINT" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_models_suggest_command_shows_for_each_task_a_model_that_fits_in_memory_and_its_pull_command(
    vestal: Vestal,
):
    vestal.env["HF_ENDPOINT"] = "http://127.0.0.1:9"
    body = json.loads(vestal.run("models", "suggest", "--ram", "24g", "--json").stdout)
    assert body["machine"]["limit_bytes"] == 16 * 1024**3
    assert [each["task"] for each in body["models"]] == ["chat", "code", "small", "embed", "rerank", "vision"]
    assert all(each["vestal"]["fits"] for each in body["models"])
    assert body["models"][0]["command"] == f"vestal models pull {body['models'][0]['name']}"
    wrong = vestal.run("models", "suggest", "--ram", "much")
    assert "--ram much is not a size" in wrong.stderr
