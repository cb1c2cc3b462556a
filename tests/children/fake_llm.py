"""A stand-in LLM server in Ollama's dialect: deterministic, it records its calls and misbehaves on demand.

`python fake_llm.py --port N [--bind A] [--models a,b]`; POST /control sets any field of State.
The modes are `ok`, `hang` (no answer), `error` (500), `empty` (200 without text or vectors); and for a
streamed chat, after its first word: `stall` (nothing more is sent), `cut` (the stream ends without `done`),
`drop` (the connection breaks), `fail` (a line with an error). GET /calls returns the requests received.
Embeddings are hashed bags of words, so texts that share words have similar vectors. A document is ranked the
higher the fewer words it has.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIM = 384


class State:
    def __init__(self, models: list[str]) -> None:
        self.mode = "ok"
        self.delay_s = self.word_s = 0.0
        self.hold = False  # requests wait for as long as it is set
        self.models = models
        self.calls: list[dict] = []
        self.context_length = 8192
        self.say: dict[str, str] = {}  # part of the system message -> the answer
        self.reject = ""  # part of a system message, or of a text to embed, that is answered with 400
        self.at_work = self.most_at_work = 0
        self.lock = threading.Lock()


def embedding(text: str) -> list[float]:
    vector = [0.0] * DIM
    for word in re.findall(r"\w+", text.lower()) or ["nothing"]:
        vector[int(hashlib.md5(word.encode()).hexdigest(), 16) % DIM] += 1.0
    length = sum(x * x for x in vector) ** 0.5
    return [x / length for x in vector]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/calls":
            with self.state.lock:
                return self.reply(
                    200, {"calls": list(self.state.calls), "most_at_work": self.state.most_at_work}
                )
        if self.misbehaves():
            return None
        if self.path == "/api/tags":
            models = [{"name": m if ":" in m else f"{m}:latest"} for m in self.state.models]
            return self.reply(200, {"models": models})
        if self.path == "/api/version":
            return self.reply(200, {"version": "0.0.0"})
        return self.reply(404, {"error": "not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path == "/control":
            for name, value in body.items():
                setattr(self.state, name, value)
            return self.reply(200, {})
        with self.state.lock:
            self.state.calls.append({"path": self.path, "body": body, "at": time.time()})
        if self.misbehaves():
            return None
        if self.path == "/api/show":
            return self.reply(200, {"model_info": {"fake.context_length": self.state.context_length}})
        with self.state.lock:
            self.state.at_work += 1
            self.state.most_at_work = max(self.state.most_at_work, self.state.at_work)
        while self.state.hold:
            time.sleep(0.02)
        time.sleep(self.state.delay_s)
        with self.state.lock:
            self.state.at_work -= 1
        if self.path == "/api/embed":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            if self.state.reject and any(self.state.reject in text for text in texts):
                return self.reply(400, {"error": "this text is not taken"})
            vectors = [] if self.state.mode == "empty" else [embedding(text) for text in texts]
            return self.reply(200, {"model": body["model"], "embeddings": vectors})
        if self.path == "/v1/rerank":
            if self.state.reject and self.state.reject in body["query"]:
                return self.reply(400, {"error": {"message": "this query is not taken"}})
            scores = [-float(len(text.split())) for text in body["documents"]]
            results = [{"index": n, "relevance_score": score} for n, score in enumerate(scores)]
            return self.reply(200, {"results": results[: 0 if self.state.mode == "empty" else None]})
        if self.path == "/api/chat":
            asked = body["messages"][-1]["content"]
            system = body["messages"][0]["content"]
            if self.state.reject and self.state.reject in system:
                return self.reply(400, {"error": "this prompt is not taken"})
            said = (answer for words, answer in self.state.say.items() if words in system)
            text = "" if self.state.mode == "empty" else next(said, f"The answer to: {asked[-200:]}")
            if body.get("stream", True):
                return self.stream(body["model"], text)
            message = {"role": "assistant", "content": text}
            return self.reply(200, {"model": body["model"], "message": message, "done": True})
        return self.reply(404, {"error": "not found"})

    def stream(self, model: str, text: str) -> None:
        """Send each word as a line of its own, `word_s` seconds apart."""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for word in re.findall(r"\S+\s*|^\s+", text):
                self.line({"model": model, "message": {"role": "assistant", "content": word}, "done": False})
                time.sleep(self.state.word_s)
                mode = self.state.mode
                while self.state.mode == "stall":
                    time.sleep(0.05)
                if mode == "fail":
                    self.line({"error": "llama runner process has terminated"})
                if mode in ("stall", "drop"):
                    self.close_connection = True
                    return
                if mode in ("cut", "fail"):
                    break
            else:
                self.line({"model": model, "message": {"role": "assistant", "content": ""}, "done": True})
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def line(self, body: dict) -> None:
        raw = json.dumps(body).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
        self.wfile.flush()

    def misbehaves(self) -> bool:
        """Return whether the mode `hang` or `error` has already handled this request."""
        if self.state.mode == "hang":
            while self.state.mode == "hang":
                time.sleep(0.05)
            self.close_connection = True
            return True
        if self.state.mode == "error":
            self.reply(500, {"error": "llama runner process has terminated"})
            return True
        return False

    def reply(self, status: int, body: dict) -> None:
        raw = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except OSError:
            self.close_connection = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--models", default="smollm2:135m,all-minilm")
    options = parser.parse_args()
    Handler.state = State([name for name in options.models.split(",") if name])
    server = ThreadingHTTPServer((options.bind, options.port), Handler)
    server.daemon_threads = True
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
