"""A stand-in for the host agent's listener that records every POST and gives a configurable answer.

`python webhook_listener.py --port N [--bind A] --token T`; POST /control sets `status`, `state`,
`services` and `retry_after_s` of the answer; GET /posts returns the recorded requests.
"""

from __future__ import annotations

import argparse
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    token = ""
    status = 202
    retry_after_s = 0
    state = "started"
    services: dict[str, str] = {}
    posts: list[dict] = []

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, {"posts": self.posts})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if self.path == "/control":
            for name, value in body.items():
                setattr(Handler, name, value)
            return self.reply(200, {})
        allowed = self.headers.get("Authorization") == f"Bearer {self.token}"
        self.posts.append({"body": body, "authorized": allowed, "path": self.path, "at": time.time()})
        if not allowed:
            return self.reply(401, {"error": {"code": "unauthorized", "message": "no"}})
        said = {"run_id": "r1", "state": self.state, "retry_after_s": self.retry_after_s}
        return self.reply(self.status, said | {"services": self.services})

    def reply(self, status: int, body: dict) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        if status == 429:
            self.send_header("Retry-After", str(self.retry_after_s))
        self.end_headers()
        self.wfile.write(raw)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--token", required=True)
    options = parser.parse_args()
    Handler.token = options.token
    server = ThreadingHTTPServer((options.bind, options.port), Handler)
    server.daemon_threads = True
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
