"""A runner of the stand-in for Ollama: a `llama-server`. The stand-in's control file says what its GET /slots
answers; without "slots" there, a runner has no such route, as in older releases.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Slots(BaseHTTPRequestHandler):
    """What llama-server answers to GET /slots."""

    control: Callable[[], dict[str, Any]]

    def do_GET(self) -> None:
        how = type(self).control().get("slots")
        while how == "hang":
            time.sleep(0.02)
            how = type(self).control().get("slots")
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


def run(control: Callable[[], dict[str, Any]]) -> None:
    """Stand for a loaded model until SIGTERM; then write `runner_ended` next to the control file."""

    def stop(number: int, frame: object) -> None:
        with contextlib.suppress(KeyError, OSError):
            Path(os.environ["STAND_IN_OLLAMA"]).with_name("runner_ended").write_text("SIGTERM")
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    Slots.control = staticmethod(control)
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
