"""Stands in for the gateway: its PID file is the supervisor's, its /health says what a file in the home says.

`fake_gateway.json` in the home: {"status": "ok", "engine": {...}}; without it, all is well. `exit_code` in it
ends the process at once with that code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOME = Path(os.environ["VESTAL_HOME"])
PORT = int(os.environ["VESTAL_MLX_PORT"])
WELL = {"status": "ok", "engine": {"pid": None, "state": "ready", "restarts": 0, "last_crash": None}}


def told() -> dict[str, Any]:
    try:
        return WELL | json.loads((HOME / "fake_gateway.json").read_text())
    except FileNotFoundError:
        return WELL


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(told()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    if "exit_code" in told():
        print("the configuration is wrong: no such model", flush=True)
        sys.exit(told()["exit_code"])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Server(("127.0.0.1", PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()
