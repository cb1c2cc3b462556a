"""A stand-in for Ollama that misbehaves on demand: `ollama serve` and `ollama runner --model … --port …`.

`install` below installs it as a program named `ollama`. A JSON file, whose path is in STAND_IN_OLLAMA and
which is read at each request, controls it: {"models": […], "hang": "all" | "tokens", "status": 500, "empty":
true, "busy": true, "slots": "advance" | "stand" | "idle" | "hang", "exit_code": 1, "ignore_term": true,
"leave_runner": true}. The JSON, messages and log lines are Ollama's own (server/routes.go, server/sched.go,
llm/llama_server.go). Its runners are in `stand_in_llama_server`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSION = "0.32.5"
DEFAULT_MODELS = ["smollm2:135m", "all-minilm:latest"]
BROKEN_RUNNER = "llama runner process has terminated: error:failed to allocate context"
LOGGED = (
    "ggml_metal_synchronize: error: command buffer 0 failed with status 5",
    "error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "graph_compute: ggml_backend_sched_graph_compute_async failed with error -1",
)


def install(folder: Path) -> Path:
    """Write a program `ollama`, which runs this module, into the folder. Return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "ollama"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).resolve().parent)!r})\n"
        "import stand_in_llama_server, stand_in_ollama\nstand_in_ollama.main(stand_in_llama_server.run)\n"
    )
    program.chmod(0o755)
    return program


def control() -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return dict(json.loads(Path(os.environ["STAND_IN_OLLAMA"]).read_text()))
    return {}


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass
class Loaded:
    """A loaded model, as Ollama's server/sched.go has it: `keep` is the keep-alive of the last request that
    named one, and `expires` is set anew when the last of its requests ends.
    """

    runner: subprocess.Popen[bytes]
    context: int
    keep: timedelta
    expires: datetime | None = None
    requests: int = 0

    def is_listed(self, now: datetime) -> bool:
        in_time = self.expires is None or self.expires > now
        return self.runner.poll() is None and (self.requests > 0 or in_time)


class Runners:
    """The loaded models. Each has a runner process of its own, as in Ollama."""

    def __init__(self) -> None:
        self.loaded: dict[str, Loaded] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def request(self, model: str, keep_alive: object, context: int) -> Iterator[None]:
        """Load the model, if it is not loaded in this way, and use it for one request."""
        with self._lock:
            used = self._load(model, context)
            used.requests += 1
            if keep_alive is not None:
                used.keep = _keep(keep_alive)
        try:
            yield
        finally:
            with self._lock:
                used.requests -= 1
                if not used.requests:
                    used.expires = datetime.now(UTC) + used.keep

    def _load(self, model: str, context: int) -> Loaded:
        loaded = self.loaded.get(model)
        if loaded and loaded.context == context and loaded.is_listed(datetime.now(UTC)):
            return loaded
        if loaded:
            log('level=DEBUG source=sched.go msg="reloading"')
            self.loaded.pop(model).runner.terminate()
        self.loaded[model] = Loaded(self._start(model), context, timedelta(seconds=300))
        return self.loaded[model]

    def _start(self, model: str) -> subprocess.Popen[bytes]:
        blob = f"/models/blobs/sha256-{abs(hash(model)):064x}"
        port = str(_free_port())
        command = [sys.executable, sys.argv[0], "runner", "--model", blob, "--port", port]
        log(f'level=INFO source=server.go msg="starting runner" cmd="ollama {" ".join(command[2:])}"')
        own_session = bool(control().get("leave_runner"))
        runner = subprocess.Popen(command, start_new_session=own_session, stdout=subprocess.PIPE)
        assert runner.stdout
        runner.stdout.readline()  # it is ready
        return runner

    def unload(self) -> None:
        for loaded in self.loaded.values():
            loaded.runner.terminate()


class Api(BaseHTTPRequestHandler):
    """The routes of server/routes.go that clients and probes use."""

    runners: Runners

    def do_GET(self) -> None:
        if self._hangs("all"):
            return
        routes = {"/api/version": self._version, "/api/tags": self._tags, "/api/ps": self._ps}
        if self.path == "/":
            self._send(200, "Ollama is running", "text/plain; charset=utf-8")
        elif self.path in routes:
            routes[self.path]()
        else:
            self._send(404, {"error": "404 page not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self._hangs("all"):
            return
        given = str(body.get("model", ""))
        model = given if ":" in given else f"{given}:latest"
        if model not in _models():
            self._send(404, {"error": f"model '{given}' not found"})
        elif self.path in ("/api/generate", "/api/chat") and model.startswith("all-minilm"):
            self._send(400, {"error": f'"{model}" does not support {self.path.removeprefix("/api/")}'})
        elif self.path in ("/api/generate", "/api/chat", "/api/embed", "/api/embeddings"):
            self._answer(model, body)
        else:
            self._send(404, {"error": "404 page not found"})

    def _answer(self, model: str, body: dict[str, Any]) -> None:
        context = int((body.get("options") or {}).get("num_ctx", 4096))
        with self.runners.request(model, body.get("keep_alive"), context):
            self._generate(model)

    def _generate(self, model: str) -> None:
        if control().get("status"):
            for line in LOGGED:
                log(line)
            self._send(int(control()["status"]), {"error": BROKEN_RUNNER})
            return
        if self._hangs("tokens"):
            return
        if self.path in ("/api/embed", "/api/embeddings"):
            vector = [0.0] * 4 if control().get("empty") else [0.1, -0.2, 0.3, 0.4]
            key = {"embeddings": [vector]} if self.path == "/api/embed" else {"embedding": vector}
            self._send(200, {"model": model, **key, "total_duration": 1, "prompt_eval_count": 1})
            return
        text = "" if control().get("empty") else " four"
        said = {"response": text} if self.path == "/api/generate" else {"message": _message(text)}
        done = {"done": True, "done_reason": "length", "eval_count": 1, "total_duration": 1}
        self._send(200, {"model": model, "created_at": _now(), **said, **done})

    def _version(self) -> None:
        self._send(200, {"version": VERSION})

    def _tags(self) -> None:
        self._send(200, {"models": [{"name": n, "model": n, "size": 1, "digest": "d"} for n in _models()]})

    def _ps(self) -> None:
        now = datetime.now(UTC)
        listed = [
            {
                "name": name,
                "model": name,
                "size": 1000 + len(name),
                "details": {"family": "bert" if name.startswith("all-minilm") else "llama"},
                "expires_at": (loaded.expires or now + loaded.keep).isoformat(),
                "size_vram": 0,
                "context_length": loaded.context,
            }
            for name, loaded in self.runners.loaded.items()
            if loaded.is_listed(now)
        ]
        self._send(200, {"models": listed})

    def _hangs(self, what: str) -> bool:
        """Hang while the control file says so. Return True if it hung, and the client gets no answer."""
        held = False
        while control().get("hang") == what:
            held = True
            time.sleep(0.02)
        return held

    def _send(self, status: int, body: object, kind: str = "application/json; charset=utf-8") -> None:
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve() -> None:
    if control().get("exit_code") is not None:
        log("Error: could not create the server")
        sys.exit(int(control()["exit_code"]))
    host, _, port = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")
    try:
        server = ThreadingHTTPServer((host, int(port)), Api)
    except OSError:
        log(f"Error: listen tcp {host}:{port}: bind: address already in use")
        sys.exit(1)
    Api.runners = Runners()

    def stop(number: int, frame: object) -> None:
        if not control().get("ignore_term"):
            if not control().get("leave_runner"):
                Api.runners.unload()
            os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log(f'level=INFO source=routes.go msg="Listening on {host}:{port} (version {VERSION})"')
    server.serve_forever(poll_interval=0.05)


def _free_port() -> int:
    """Return a port as Ollama finds one for its runner: bound, and given back."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _models() -> list[str]:
    return list(control().get("models", DEFAULT_MODELS))


def _keep(value: object) -> timedelta:
    if value == -1:
        return timedelta(days=100_000)
    return timedelta(seconds=float(str(value).removesuffix("s")))


def _message(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _now() -> str:
    return datetime.now(UTC).isoformat()


def main(runner: Callable[[Callable[[], dict[str, Any]]], None]) -> None:
    match sys.argv[1:2]:
        case ["serve" | "start"]:
            serve()
        case ["runner"]:
            runner(control)
        case _:
            print(f"ollama version is {VERSION}")
