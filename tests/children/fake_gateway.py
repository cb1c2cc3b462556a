"""A stand-in for the gateway whose GET /health answers with the contents of a file.

The file is `fake_gateway.json` in VESTAL_HOME: {"status": "ok", "engine": {...}}; without it, the answer is
that of a healthy gateway. With `exit_code` in the file, the process exits at once with that code. With
`start_s`, it serves after that many seconds; with `stop_s`, it ends that many seconds after SIGTERM, or once
the file is deleted. While it has `computes`, requests are not answered, and the process computes. Like the
real gateway it serves the socket that it inherits from the agent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from vestal.web.listening_sockets import InheritedSockets

HOME = Path(os.environ["VESTAL_HOME"])
PORT = int(os.environ["VESTAL_MLX_PORT"])
HEALTHY = {"status": "ok", "engine": {"pid": None, "state": "ready", "restarts": 0, "last_crash": None}}


def health() -> dict[str, Any]:
    while True:
        try:
            return HEALTHY | json.loads((HOME / "fake_gateway.json").read_text())
        except FileNotFoundError:
            return HEALTHY
        except json.JSONDecodeError:
            time.sleep(0.01)  # the test is just writing it


def end(number: int, frame: object) -> None:
    asked_at = time.monotonic()
    while time.monotonic() < asked_at + health().get("stop_s", 0):
        time.sleep(0.02)
    os._exit(0)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        while "computes" in health():
            pass
        body = json.dumps(health()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    if "exit_code" in health():
        print("the configuration is wrong: no such model", flush=True)
        sys.exit(health()["exit_code"])
    signal.signal(signal.SIGTERM, end)
    time.sleep(health().get("start_s", 0))
    inherited = InheritedSockets.from_environment().take("127.0.0.1", PORT)
    server = Server(("127.0.0.1", PORT), Handler, bind_and_activate=inherited is None)
    if inherited is not None:
        inherited.setblocking(True)
        server.socket = inherited
    server.serve_forever()


if __name__ == "__main__":
    main()
