"""Fake answers of gateway, orchestrator and agent for the sections of the status page: usual and odd data."""

from __future__ import annotations

import json
import time
from typing import Any

from aiohttp import web

GIB = 2**30
HOSTILE = '<img src=x onerror="document.title=1"><b>bold</b>'
LONG_NAME = "mlx-community/" + "Qwen3-Coder-480B-A35B-Instruct-" * 6 + "4bit"


def request(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return one request as the gateway lists it."""
    return {
        "id": f"{number:032x}",
        "client": "Claude Code 2.1",
        "remote": "127.0.0.1",
        "dialect": "anthropic",
        "model": "qwen3.5:9b",
        "phase": "running",
        "prompt_tokens": 18231,
        "tokens": 412,
        "tokens_per_s": 41.2,
        "age_s": 12.4,
        "crashes": 0,
        "cancelable": True,
    } | changes


def frame(*requests: dict[str, Any]) -> dict[str, Any]:
    """Return the gateway's frame of requests."""
    return {"requests": list(requests), "totals": {}}


def model(name: str, **changes: Any) -> dict[str, Any]:
    """Return one entry of /api/tags."""
    return {
        "name": name,
        "model": name,
        "size": 5 * GIB,
        "digest": "d" * 64,
        "capabilities": ["completion", "tools"],
        "details": {"parameter_size": "9.2B", "quantization_level": "Q4", "context_length": 40960},
        "vestal": {"fits": True, "needed_bytes": 6 * GIB, "limit_bytes": 20 * GIB},
    } | changes


def models(*found: dict[str, Any], loaded: tuple[str, ...] = ()) -> dict[tuple[str, str], Any]:
    """Return the answers of /api/tags and /api/ps for these models, of which `loaded` are in memory."""
    running = [{"name": name, "size": 6 * GIB, "context_length": 32768} for name in loaded]
    memory = {"limit_bytes": 20 * GIB, "in_use_bytes": 7 * GIB, "weights_bytes": 5 * GIB, "kv_bytes": GIB}
    return {
        ("GET", "/gateway/api/tags"): {"models": list(found)},
        ("GET", "/gateway/api/ps"): {"models": running},
        ("GET", "/gateway/health"): {"status": "ok", "memory": memory},
    }


def usual_models() -> dict[tuple[str, str], Any]:
    """Return the answers about four models: a small one, a loaded one, a too large one, and an embedding
    model.
    """
    too_large = {"fits": False, "needed_bytes": 41 * GIB, "limit_bytes": 20 * GIB}
    return models(
        model("smollm2:135m", size=270_000_000),
        model("qwen3.5:9b"),
        model(LONG_NAME, size=40 * GIB, vestal=too_large),
        model("nomic-embed-text", capabilities=["embedding"], vestal=None, details={}),
        loaded=("qwen3.5:9b",),
    )


def changing_models() -> dict[tuple[str, str], Any]:
    """Return stateful answers about the usual models: loading, unloading and deleting changes them."""
    answers = usual_models()
    installed = answers["GET", "/gateway/api/tags"]["models"]
    running = answers["GET", "/gateway/api/ps"]["models"]

    async def generate(request: web.Request) -> web.Response:
        body = await request.json()
        running[:] = [each for each in running if each["name"] != body["model"]]
        if body.get("keep_alive") != 0:
            running.append({"name": body["model"], "size": GIB, "context_length": 4096})
        return web.json_response({"done": True})

    async def delete(request: web.Request) -> web.Response:
        name = (await request.json())["model"]
        installed[:] = [each for each in installed if each["name"] != name]
        return web.Response()

    changes = {("POST", "/gateway/api/generate"): generate, ("DELETE", "/gateway/api/delete"): delete}
    return answers | changes


def refusal(status: int, message: str, code: str = "refused") -> web.Response:
    """Return an error response in the form that the agent and the orchestrator use."""
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


def ndjson(*objects: Any, status: int = 200, **headers: str) -> web.Response:
    """Return a complete response of one JSON object a line."""
    text = "".join(json.dumps(each) + "\n" for each in objects)
    return web.Response(text=text, status=status, content_type="application/x-ndjson", headers=headers)


def task(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return one task of the orchestrator's list."""
    now = time.time()
    return {
        "id": f"task-{number}",
        "goal": "Compare the herons of the two notes, and say which one eats earlier.",
        "agents": ["reader", "critic"],
        "state": "done",
        "worker": "w1",
        "created_at": now - 90,
        "started_at": now - 88,
        "finished_at": now - 40,
    } | changes


def whole_task(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a task with its steps."""
    now = time.time()
    steps = [
        {"name": name, "state": "done", "started_at": now - 80 + at, "finished_at": now - 78 + at}
        for at, name in enumerate(("plan", "retrieve:reader", "answer:reader", "answer:critic", "join"))
    ]
    answers = [
        {"agent": "reader", "goal": "find what herons eat", "answer": "Fish, at dawn.", "error": None},
        {"agent": "critic", "goal": "doubt it", "answer": None, "error": "no backend serves its model"},
    ]
    sources = [{"agent": "reader", "file": "birds.md", "heading": "Birds > Heron", "score": 0.87}]
    return task(number) | {
        "steps": steps,
        "answer": "The grey heron eats first, at dawn.",
        "answers": answers,
        "sources": sources,
        "notes": ["critic could not answer: no backend serves its model"],
        "error": None,
    } | changes  # fmt: skip


def cycle(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return one cycle that skipped two phases."""
    backend = {"used": True, "absent": False, "healthy": True, "breaker": "closed", "detail": ""}
    phases = [
        {"phase": "health", "state": "done", "why": "all healthy", "webhook": ""},
        {"phase": "tasks", "state": "skipped", "why": "no task waits"},
        {"phase": "knowledge", "state": "skipped", "why": "no healthy backend serves embeddings"},
        {"phase": "report", "state": "done", "why": "every cycle is recorded"},
    ]
    return {
        "id": number,
        "started_at": time.time() - 300 * number - 1,
        "finished_at": time.time() - 300 * number,
        "duration_s": 0.4,
        "trigger": "interval",
        "backends": {"mlx": backend, "ollama": backend | {"healthy": False, "detail": "connection refused"}},
        "phases": phases,
        "notices": [],
    } | changes


def orchestrator(
    *tasks: dict[str, Any], cycles: tuple[dict[str, Any], ...] = ()
) -> dict[tuple[str, str], Any]:
    """Return the orchestrator's answers."""
    note = {"text": "Birds of the marsh: what they eat and when.", "model": "smollm2", "made_at": time.time()}
    agents = [
        {"name": "lead", "role": "the lead", "model": "m", "searches": None},
        {"name": "reader", "role": "the reader", "model": "m", "searches": ["reader"]},
    ]
    return {
        ("GET", "/orchestrator/tasks"): {"tasks": list(tasks)},
        ("GET", "/orchestrator/cycles"): {"cycles": list(cycles)},
        ("GET", "/orchestrator/knowledge/notes"): {"notes": {"reader": note}},
        ("GET", "/orchestrator/agents"): {
            "agents": agents,
            "folders": {"reader": {"files": 2, "passages": 14}, "critic": {"files": 0, "passages": 0}},
        },
    }


def finding(name: str, level: str, **changes: Any) -> dict[str, Any]:
    """Return one finding of the doctor."""
    usual = {"sentence": f"{name} was looked at.", "remedy": "", "evidence": "", "action": None}
    return {"name": name, "level": level} | usual | changes


def usual_report() -> dict[str, Any]:
    """Return the doctor's report for a machine with one fault."""
    killed = "mlx_engine child_exited SIGKILL"
    engine = finding(
        "engine",
        "fault",
        sentence="The engine was killed three times within a minute.",
        remedy="Restart the MLX server.",
        evidence=f"05:23:46 {killed}\n05:23:59 {killed}",
        action={"label": "Restart the MLX server", "method": "POST", "path": "/services/mlx_server/restart"},
    )
    sleep = finding("sleep", "note", sentence="This machine sleeps.", remedy="Run `sudo pmset -c sleep 0`.")
    return {"findings": [finding("ports", "ok"), sleep, engine], "took_s": 2.3}


def client(name: str, title: str, *lines: str, **changes: Any) -> dict[str, Any]:
    """Return one program of GET /clients, with the shell lines that connect it."""
    return {"name": name, "title": title, "lines": list(lines), "note": "", "fits": True} | changes


def clients() -> dict[str, Any]:
    """Return the body of GET /clients."""
    settings = "export ANTHROPIC_BASE_URL=http://127.0.0.1:11435 ANTHROPIC_AUTH_TOKEN=vestal"
    why = "It needs a context of 32,768 tokens or more."
    return {
        "model": "qwen3.5:9b",
        "clients": [
            client("claude", "Claude Code", settings, "claude --model qwen3.5:9b"),
            client("codex", "Codex CLI", "export KEY=vestal", "codex -m qwen3.5:9b", fits=False, note=why),
        ],
    }
