"""Ollama's routes for models, by the real application without an engine: what clients send and get."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import os
import struct
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from mlx_server import protocol
from mlx_server.engine.errors import InsufficientMemory
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.memory.ledger import GIB, MemoryReading
from mlx_server.gateway.app import create_app
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.telemetry import Telemetry
from mlx_server.model_store import disk, layout
from mlx_server.model_store.forecasts import PREFILL_STEP_TOKENS, THIS_MACHINE, files_of
from tests.models.adapter_folders import write_adapter, write_base
from vestal.config import load
from vestal.supervision import FakeClock

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content }}<think></think>{% endfor %}"
QUESTION = [{"role": "user", "content": "x"}]
DIGEST = "sha256:" + "0" * 64


class Server:
    """The application, and the operations that an engine would be sent. Each request ends at once."""

    def __init__(self, tmp_path: Any) -> None:
        settings = {"models": {"base:1b": {"source": "hf:org/base"}}, "mlx": {"models_folder": "none"}}
        (tmp_path / "vestal.yaml").write_text(json.dumps(settings))
        self.config = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
        clock = FakeClock()
        telemetry = Telemetry(clock.wall, io.StringIO())
        self.dispatcher = Dispatcher(RequestTable(RequestLimits(5, 5, 60)), clock, telemetry)
        self.sent: list[Any] = []
        self.dispatcher.engine_ready(self._answer, [])
        self.models = InstalledModels(self.config, clock)
        context = GatewayContext(self.config, clock, self.dispatcher, self.models)
        app = create_app(context, cast(Any, None), telemetry)
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    def _answer(self, frame: bytes) -> None:
        operation = cast(Any, protocol.decode_op(frame))
        self.sent.append(operation)
        usage = protocol.Usage(prompt_tokens=1, completion_tokens=1)
        event: protocol.Event = protocol.Done(operation.id, "stop", usage, text="ok")
        if isinstance(operation, protocol.Load):
            event = protocol.Loaded(operation.model, 1, 0.1, operation.id)
        elif isinstance(operation, protocol.Unload):
            event = protocol.Unloaded(operation.model, operation.id)
        asyncio.get_running_loop().call_soon(self.dispatcher.on_event, event)

    async def post(self, path: str, body: dict[str, Any], method: str = "POST") -> tuple[int, Any]:
        """Return the status, and the object or the list of lines of the answer."""
        answer = await self.http.request(method, path, json=body)
        lines = [json.loads(line) for line in answer.text.splitlines()]
        return answer.status_code, lines if "ndjson" in answer.headers.get("content-type", "") else lines[0:1]

    async def ok(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        """Return the lines of an answer that must be a success."""
        status, lines = await self.post(path, body, method)
        assert status == 200, lines
        return lines

    async def create(self, **body: Any) -> list[dict[str, Any]]:
        return await self.ok("/api/create", {"from": "base:1b"} | body)

    async def shown(self, model: str) -> Any:
        (shown,) = await self.ok("/api/show", {"model": model})
        return shown

    async def names(self) -> list[str]:
        return [model["name"] for model in await self.tags()]

    async def tags(self) -> list[dict[str, Any]]:
        return (await self.http.get("/api/tags")).json()["models"]


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    folder = layout.installed_path(server.config.models_dir, "base:1b")
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "max_position_embeddings": 100,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(CHATML)
    raw = json.dumps({"w": {"dtype": "F16", "shape": [1000, 1000], "data_offsets": [0, 2_000_000]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(2_000_000))
    layout.write_manifest(folder, "base:1b", {"source": "hf:org/base"})
    return server


async def test_ollama_root_and_version_routes_return_the_text_and_version_that_clients_require(server):
    """`codex --oss` refuses a server below 0.13.4."""
    assert (await server.http.get("/")).text == "Ollama is running"
    for path in ("/", "/api/version", "/api/tags"):
        assert (await server.http.head(path)).status_code == 200
    version = (await server.http.get("/api/version")).json()["version"]
    assert tuple(map(int, version.split("."))) >= (0, 13, 4)


async def test_ollama_tags_say_that_a_model_fits_memory_exactly_if_the_engine_would_load_it(server):
    """Before an engine reports its limit, the field is absent. A model made from another one needs as
    much.
    """
    await server.create(model="made", system="Be brief.")
    assert all("vestal" not in tag for tag in await server.tags())

    def alive(limit_bytes: int) -> protocol.Alive:
        return protocol.Alive(1, False, 0, limit_bytes=limit_bytes)

    server.dispatcher.on_event(alive(64 * GIB))
    (entry, _) = await server.models.all()
    fits = {tag["name"]: tag["vestal"] for tag in await server.tags()}
    needed_bytes = fits["base:1b"]["needed_bytes"]
    assert fits["base:1b"] == {"fits": True, "needed_bytes": needed_bytes, "limit_bytes": 64 * GIB}
    assert fits["made:latest"] == fits["base:1b"]
    reading = MemoryReading(64 * GIB, 64 * GIB, 0, 0, 0)
    for limit_bytes, is_enough in ((needed_bytes, True), (needed_bytes - 1, False)):
        server.dispatcher.on_event(alive(limit_bytes))
        assert [tag["vestal"]["fits"] for tag in await server.tags()] == [is_enough, is_enough]
        guard = MemoryGuard(limit_bytes, THIS_MACHINE, PREFILL_STEP_TOKENS, lambda: reading, files_of)
        if is_enough:
            guard.before_load(entry)
        else:
            with pytest.raises(InsufficientMemory, match="needs"):
                guard.before_load(entry)


async def test_ollama_tags_of_a_model_with_unreadable_files_do_not_say_whether_it_fits_memory(server):
    server.dispatcher.on_event(protocol.Alive(1, False, 0, limit_bytes=GIB))
    (entry,) = await server.models.all()
    (entry.path / "config.json").unlink()
    (tag,) = await server.tags()
    assert "vestal" not in tag


async def test_ollama_request_with_an_empty_model_field_uses_its_name_field(server):
    """Ollama's Go package writes `"model": ""` wherever a program sets only the name: show, pull, rm."""
    both = {"model": "", "name": "BASE:1B"}
    assert (await server.ok("/api/show", both | {"verbose": False, "options": None}))[0]["details"]
    assert await server.ok("/api/generate", both | {"stream": False})
    assert await server.ok(
        "/api/chat", both | {"stream": False, "messages": [{"role": "user", "content": "x"}]}
    )
    assert await server.ok("/api/create", {"model": "", "name": "made", "from": "base:1b", "stream": False})
    status, (error,) = await server.post("/api/delete", {"model": "", "name": "no-such-model"}, "DELETE")
    assert (status, error["code"]) == (404, "model_not_found")
    status, (error,) = await server.post("/api/show", {"model": "", "name": ""})
    assert status == 400


async def test_ollama_model_is_found_by_every_spelling_of_its_name(server):
    for name in ("BASE:1b", "library/base:1b", "registry.ollama.ai/library/Base:1B"):
        assert (await server.shown(name))["model_info"]["general.basename"] == name
        await server.ok("/v1/chat/completions", {"model": name, "messages": QUESTION})
        assert server.sent[-1].model == "base:1b"


async def test_ollama_tags_and_show_have_the_fields_that_model_pickers_read(server):
    (tag,) = (await server.http.get("/api/tags")).json()["models"]
    assert tag["capabilities"] == ["completion", "tools", "thinking"]
    assert tag["details"] == {
        **{"parent_model": "", "format": "mlx", "family": "llama", "families": ["llama"]},
        **{"parameter_size": "1.00M", "quantization_level": "F16"},
        **{"context_length": 100, "embedding_length": 64},
    }
    shown = await server.shown("base:1b")
    info = shown["model_info"]
    assert info["general.architecture"] == "llama"
    assert info["general.parameter_count"] == 1_000_000
    figures = [info[f"llama.{name}"] for name in ("context_length", "embedding_length", "block_count")]
    assert figures == [100, 64, 3]
    assert shown["template"] == CHATML
    assert shown["capabilities"] == tag["capabilities"]
    assert "tensors" not in shown
    (verbose,) = await server.ok("/api/show", {"model": "base:1b", "verbose": True})
    assert verbose["tensors"] == [{"name": "w", "type": "F16", "shape": [1000, 1000]}]


async def test_model_created_as_by_ollamas_save_command_is_listed_shown_and_used(server):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It's-a me!"}]
    parameters = {"temperature": "0.25", "stop": ["END", "\n\n"], "top_p": None}
    lines = await server.create(
        model="Mario", system="You are Mario.", parameters=parameters, messages=messages, license=["MIT"]
    )
    statuses = [line["status"] for line in lines]
    assert statuses[0].startswith("using existing layer sha256:")
    assert statuses[1].startswith("creating new layer sha256:")
    assert statuses[-2:] == ["writing manifest", "success"]
    assert await server.names() == ["Mario:latest", "base:1b"]
    shown = await server.shown("mario")
    assert (shown["system"], shown["messages"]) == ("You are Mario.", messages)
    assert shown["license"] == "MIT"
    assert shown["details"]["parent_model"] == "base:1b"
    rows = [line.split(maxsplit=1) for line in shown["parameters"].splitlines()]
    assert rows == [["temperature", "0.25"], ["stop", '"END"'], ["stop", '"\\n\\n"']]
    assert "FROM base:1b\n" in shown["modelfile"]
    assert 'PARAMETER stop "\n\n"\n' in shown["modelfile"]
    assert "MESSAGE assistant It's-a me!\n" in shown["modelfile"]
    question = {"model": "mario", "messages": [{"role": "user", "content": "Who?"}]}
    await server.ok("/api/chat", question | {"stream": False})
    await server.ok("/v1/chat/completions", question)
    await server.ok("/v1/messages", question | {"max_tokens": 5})
    await server.ok("/v1/responses", {"model": "mario", "input": "Who?"})
    await server.ok("/v1/messages/count_tokens", question)
    for operation in server.sent:
        assert operation.model == "base:1b"
        contents = [message["content"] for message in operation.messages]
        assert contents == ["You are Mario.", "Hi", "It's-a me!", "Who?"]
        assert (operation.sampling.temperature, operation.stop) == (
            0.25,
            ("END", "\n\n"),
        ) or operation.count_only


async def test_created_model_uses_its_own_template_only_if_it_differs_from_that_of_its_parent_model(server):
    await server.create(model="same", template=CHATML)
    await server.create(model="other", template="{% for m in messages %}{{ m.content }}{% endfor %}")
    question = {"messages": [{"role": "user", "content": "x"}], "stream": False}
    await server.ok("/api/chat", question | {"model": "same"})
    await server.ok("/api/chat", question | {"model": "other"})
    assert [operation.chat_template is None for operation in server.sent] == [True, False]
    assert (await server.shown("other"))["capabilities"] == ["completion", "tools"]


REFUSED_CREATIONS: list[tuple[dict[str, Any], int, str]] = [
    ({"model": ""}, 400, "model"),
    ({"model": "a b"}, 400, "invalid model name"),
    ({"model": "x", "from": ""}, 400, "neither 'from' or 'files'"),
    ({"model": "x", "from": "", "modelfile": "FROM base:1b"}, 400, "Modelfile is read by the client"),
    ({"model": "x", "from": "no-such-model"}, 404, "pull model manifest: file does not exist"),
    ({"model": "base:1b", "system": "x"}, 400, "Choose another name"),
    ({"model": "x", "quantize": "q4_K_M"}, 400, "not quantized"),
    ({"model": "x", "adapters": {"a": DIGEST}}, 400, "a was not uploaded"),
    ({"model": "x", "parameters": {"temperature": "warm"}}, 400, "temperature"),
    ({"model": "x", "parameters": {"stop": [1]}}, 400, "stop"),
    ({"model": "x", "messages": [{"role": "user", "images": ["x"]}]}, 400, "reads text only"),
    ({"model": "x", "template": "{{ .Nothing }} {{ .Prompt }}"}, 400, "no field '.Nothing'"),
    ({"model": "x", "template": "{% for m in %}"}, 400, "no template in Jinja"),
    ({"model": "x", "template": "{" * 70_000}, 400, "longer than"),
    ({"model": "x", "from": "", "files": {"m.gguf": "sha256:00"}}, 400, "not a digest"),
    ({"model": "x", "from": "", "files": {"m.gguf": DIGEST}}, 400, "was not uploaded"),
]


@pytest.mark.parametrize("stream", [True, False])
async def test_ollama_create_of_an_invalid_model_is_refused_and_leaves_no_model(server, stream):
    for body, status, words in REFUSED_CREATIONS:
        found, lines = await server.post("/api/create", {"from": "base:1b", "stream": stream} | body)
        assert words in lines[-1]["error"], body
        assert found == status, body
        assert await server.names() == ["base:1b"]


async def test_ollama_create_with_an_adapter_makes_a_model_that_names_its_base_and_can_be_loaded(
    server, tmp_path
):
    """`ollama create` sends the files of a Modelfile's ADAPTER, and their digests as `adapters`."""
    base, adapter = write_base(tmp_path / "made"), write_adapter(tmp_path / "pirate", rank=4, scale=8.0)
    for file in ("config.json", "model.safetensors"):
        (layout.installed_path(server.config.models_dir, "base:1b") / file).write_bytes(
            (base / file).read_bytes()
        )
    digests: dict[str, str] = {}
    for path in adapter.iterdir():
        digests[path.name] = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        sent = await server.http.post(f"/api/blobs/{digests[path.name]}", content=path.read_bytes())
        assert sent.status_code == 201
    await server.create(model="base:pirate", adapters=digests)
    shown = await server.shown("base:pirate")
    assert shown["details"]["parent_model"] == "base:1b" and "completion" in shown["capabilities"]
    info = shown["model_info"]
    assert (info["adapter.type"], info["adapter.lora.rank"], info["adapter.lora.alpha"]) == ("lora", 4, 32.0)
    assert "base:1b + lora of rank 4" in shown["modelfile"] and "\nFROM base:pirate\n" in shown["modelfile"]
    tags = {model["name"]: model for model in await server.tags()}
    assert tags["base:pirate"]["details"]["parent_model"] == "base:1b"
    assert tags["base:pirate"]["digest"] != tags["base:1b"]["digest"]
    listed = {model["id"]: model for model in (await server.http.get("/v1/models")).json()["data"]}
    assert listed["base:pirate"]["parent"] == "base:1b" and "parent" not in listed["base:1b"]
    await server.ok("/api/chat", {"model": "base:pirate", "messages": QUESTION, "stream": False})
    await server.create(model="polite", **{"from": "base:pirate", "system": "Be polite."})
    await server.ok("/api/chat", {"model": "polite", "messages": QUESTION, "stream": False})
    asked = [operation.model for operation in server.sent if isinstance(operation, protocol.Generate)]
    assert asked == ["base:pirate", "base:pirate"]
    assert "FROM base:pirate\n" in (await server.shown("polite"))["modelfile"]
    await server.ok("/api/delete", {"model": "base:pirate"}, "DELETE")
    assert sorted(await server.names()) == ["base:1b", "polite:latest"]


async def test_ollama_copy_of_a_model_survives_the_deletion_of_its_source(server):
    await server.ok("/api/copy", {"source": "BASE:1b", "destination": "me/twin"})
    await server.ok("/api/delete", {"model": "base:1b"}, "DELETE")
    assert await server.names() == ["me/twin:latest"]
    question = {"model": "me/twin", "messages": [{"role": "user", "content": "x"}], "stream": False}
    await server.ok("/api/chat", question)
    assert server.sent[-1].model == "me/twin:latest"
    for destination, source, status in [
        ("x", "gone", 404),
        ("a b", "me/twin", 400),
        ("base:1b", "me/twin", 400),
    ]:
        found, _ = await server.post("/api/copy", {"source": source, "destination": destination})
        assert found == status


@pytest.mark.parametrize(
    ("number", "status", "code"), [(errno.EROFS, 500, "store_unwritable"), (errno.ENOSPC, 507, "disk_full")]
)
async def test_ollama_delete_from_a_store_that_cannot_be_written_says_so(
    server, monkeypatch, number, status, code
):
    """It was an internal error with a traceback."""

    def refuse(*_args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", refuse)
    found, (error,) = await server.post("/api/delete", {"model": "base:1b"}, "DELETE")
    assert (found, error["code"]) == (status, code)
    assert "mlx.store" in error["error"]
    assert await server.names() == ["base:1b"]


async def test_ollama_delete_of_a_derived_model_does_not_unload_the_shared_weights(server):
    await server.create(model="mario", system="x")
    await server.ok("/api/generate", {"model": "mario", "stream": False})
    await server.ok("/api/delete", {"model": "mario"}, "DELETE")
    assert [type(operation) for operation in server.sent] == [protocol.Load]
    await server.ok("/api/delete", {"name": "base:1b"}, "DELETE")
    assert [type(operation) for operation in server.sent] == [protocol.Load, protocol.Unload]


async def test_go_template_of_a_created_model_is_translated_for_chats_and_shown_unchanged(server):
    source = "{{ if .System }}<s>{{ .System }}{{ end }}<u>{{ .Prompt }}<a>{{ .Response }}</a>"
    await server.create(model="go", template=source)
    shown = await server.shown("go")
    assert shown["template"] == source
    await server.create(**{"model": "again", "from": "go", "template": shown["template"], "system": "x"})
    for name in ("go", "again"):
        await server.ok("/api/chat", {"model": name, "messages": QUESTION, "stream": False})
    assert len({operation.chat_template for operation in server.sent}) == 1
    assert "{% macro turn" in server.sent[0].chat_template


async def test_ollama_push_is_refused_with_400_and_a_message_that_models_are_not_pushed(server):
    status, (error,) = await server.post("/api/push", {"model": "base:1b"})
    assert status == 400
    assert "not pushed" in error["error"]


async def test_ollama_blob_does_not_exist_until_it_is_uploaded_with_the_right_digest(server):
    content = b"x" * 3_000_000
    path = f"/api/blobs/sha256:{hashlib.sha256(content).hexdigest()}"
    assert (await server.http.head(path)).status_code == 404
    assert (await server.http.post(path, content=content[:-1])).status_code == 400
    assert (await server.http.head(path)).status_code == 404
    assert (await server.http.post(path, content=content)).status_code == 201
    assert (await server.http.head(path)).status_code == 200
    assert (await server.http.post(path, content=content)).status_code == 200
    assert (await server.http.head("/api/blobs/sha256:00")).status_code == 400
    assert (await server.http.post("/api/blobs/..%2Fx", content=b"x")).status_code in (400, 404)


async def test_ollama_blob_whose_announced_size_does_not_fit_is_refused_with_its_need(server, monkeypatch):
    """The refusal of an upload named only the disk space that must stay free."""
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: SimpleNamespace(free=65 * 1024**2))
    path = f"/api/blobs/sha256:{'0' * 64}"
    refused = await server.http.post(path, content=b"x" * 2 * 1024**2)
    assert refused.status_code == 507
    assert "needs 66.0 MiB of disk, and 65.0 MiB are free" in refused.json()["error"]


async def test_ollama_pull_of_an_unknown_name_is_refused_with_ollamas_message(server):
    for stream in (True, False):
        status, (error,) = await server.post("/api/pull", {"name": "no-such-model", "stream": stream})
        assert status == 404
        assert error["error"].startswith("pull model manifest: file does not exist")
