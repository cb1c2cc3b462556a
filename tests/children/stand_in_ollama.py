"""A stand-in for Ollama that misbehaves on demand: `ollama serve` and `ollama runner --model … --port …`.

`install` below installs it as a program named `ollama`. A JSON file, whose path is in STAND_IN_OLLAMA and
which is read at each request, controls it: {"models": […], "hang": "all" | "tokens", "status": 500, "empty":
true, "busy": true, "slots": "advance" | "stand" | "idle" | "hang", "exit_code": 1, "ignore_term": true,
"leave_runner": true}. The JSON, messages and log lines are Ollama's own (server/routes.go, server/sched.go,
llm/llama_server.go), and /slots is llama-server's; without "slots", a runner has no such route, as in older
releases.
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
        "import stand_in_ollama\nstand_in_ollama.main()\n"
    )
    program.chmod(0o755)
    return program


def control() -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return dict(json.loads(Path(os.environ["STAND_IN_OLLAMA"]).read_text()))
    return {}


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Runners:
    """The loaded models. Each has a runner process of its own, as in Ollama."""

    def __init__(self) -> None:
        self.loaded: dict[str, tuple[subprocess.Popen[bytes], datetime, int]] = {}
        self._lock = threading.Lock()

    def load(self, model: str, keep_alive: object, context: int) -> None:
        with self._lock:
            expires = datetime.now(UTC) + _keep(keep_alive)
            if model in self.loaded and self.loaded[model][2] == context:
                self.loaded[model] = (self.loaded[model][0], expires, context)
                return
            if model in self.loaded:
                log('level=DEBUG source=sched.go msg="reloading"')
                self.loaded.pop(model)[0].terminate()
            blob = f"/models/blobs/sha256-{abs(hash(model)):064x}"
            port = str(_free_port())
            command = [sys.executable, sys.argv[0], "runner", "--model", blob, "--port", port]
            log(f'level=INFO source=server.go msg="starting runner" cmd="ollama {" ".join(command[2:])}"')
            own_session = bool(control().get("leave_runner"))
            runner = subprocess.Popen(command, start_new_session=own_session, stdout=subprocess.PIPE)
            assert runner.stdout
            runner.stdout.readline()  # it is ready
            self.loaded[model] = (runner, expires, context)

    def unload(self) -> None:
        for runner, _, _ in self.loaded.values():
            runner.terminate()


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
        self.runners.load(model, body.get("keep_alive"), context)
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
                "expires_at": expires.isoformat(),
                "size_vram": 0,
                "context_length": context,
            }
            for name, (runner, expires, context) in self.runners.loaded.items()
            if runner.poll() is None and expires > now
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


class Slots(BaseHTTPRequestHandler):
    """What llama-server answers to GET /slots."""

    def do_GET(self) -> None:
        how = control().get("slots")
        while how == "hang":
            time.sleep(0.02)
            how = control().get("slots")
        read = 512 if how == "stand" else int(time.monotonic() * 1000)
        slot = {
            "id": 0,
            "n_ctx": 4096,
            "is_processing": how != "idle",
            "id_task": 7,
            "n_prompt_tokens": read,
            "n_prompt_tokens_processed": read,
            "n_prompt_tokens_cache": 0,
            "next_token": [{"has_next_token": True, "n_remain": -1, "n_decoded": 0}],
        }
        raw = json.dumps([slot]).encode() if how else b'{"error":{"code":404,"message":"File Not Found"}}'
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(200 if how else 404)
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


def runner() -> None:
    """Stand for a loaded model until SIGTERM; then write `runner_ended` next to the control file."""

    def stop(number: int, frame: object) -> None:
        with contextlib.suppress(KeyError, OSError):
            Path(os.environ["STAND_IN_OLLAMA"]).with_name("runner_ended").write_text("SIGTERM")
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    slots = ThreadingHTTPServer(("127.0.0.1", port), Slots)
    threading.Thread(target=slots.serve_forever, daemon=True).start()
    print("ready", flush=True)
    while True:
        until, busy = time.monotonic() + 0.1, control().get("busy")
        while busy and time.monotonic() < until:
            pass
        if not busy:
            time.sleep(0.2)  # rarely, because an idle runner must use no CPU


def _free_port() -> int:
    """Return a port as Ollama finds one for its runner: bound, and given back."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _models() -> list[str]:
    return list(control().get("models", DEFAULT_MODELS))


def _keep(value: object) -> timedelta:
    if value == -1:
        return timedelta(days=100_000)
    return timedelta(seconds=float(str(value).removesuffix("s")) if value is not None else 300.0)


def _message(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _now() -> str:
    return datetime.now(UTC).isoformat()


def main() -> None:
    match sys.argv[1:2]:
        case ["serve" | "start"]:
            serve()
        case ["runner"]:
            runner()
        case _:
            print(f"ollama version is {VERSION}")


if __name__ == "__main__":
    main()
