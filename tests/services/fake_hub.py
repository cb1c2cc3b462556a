"""A Hugging Face hub on loopback: repositories in memory, `Range` requests, and a count of the bytes sent."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.services.http_servers import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 4096
PART_BYTES = 64 * 1024


def safetensors(shapes: dict[str, tuple[int, ...]], dtype: str = "F16") -> bytes:
    """Return a safetensors file of zeros, with two bytes for each number."""
    entries: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + bytes(end)


def model_files(weights_bytes: int = 200_000, **config: Any) -> dict[str, bytes]:
    """Return the files of a model of the Llama architecture with about `weights_bytes` of zeros."""
    small = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "max_position_embeddings": 65536,
    }
    return {
        "config.json": json.dumps(small | config).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": safetensors({"model.embed_tokens.weight": (weights_bytes // 128, 64)}),
        "README.md": b"---\nlicense: mit\n---\n",
    }


@dataclass
class FakeRepository:
    """A repository. If `gated`, its files need a token. Those in `damaged` are sent with a wrong byte."""

    files: dict[str, bytes]
    gated: bool = False
    damaged: frozenset[str] = frozenset()
    announced: dict[str, int] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=lambda: {"license": "mit"})
    listing: dict[str, Any] = field(default_factory=dict)

    def siblings(self) -> list[dict[str, Any]]:
        found = []
        for name, data in self.files.items():
            size = self.announced.get(name, len(data))
            file: dict[str, Any] = {"rfilename": name, "size": size, "blobId": hashlib.sha1(data).hexdigest()}
            if size > LARGE_BYTES:
                sha256 = hashlib.sha256(data).hexdigest()
                file["lfs"] = {"size": size, "sha256": sha256, "pointerSize": 134}
            found.append(file)
        return found


class FakeHub(ThreadingHTTPServer):
    """`sent` counts the bytes of each file that were sent, with the part that is being sent, `requests` the
    paths that were asked for, `sending` the answers that are being sent now.

    Files larger than `PART_BYTES` take `lasts_s` each.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, FakeRepository] = {}
        self.sent: dict[str, int] = defaultdict(int)
        self.requests: list[str] = []
        self.sending = 0
        self.tokens: set[str] = set()
        self.lasts_s = 0.0
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Run a hub for the time of the block."""
    with serving(FakeHub()) as server:
        yield server


class _Answers(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.server.requests.append(self.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.server.tokens:
            self._send(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif url.path == "/api/models":
            self._list(parse_qs(url.query))
        elif match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/([^/]+))?", url.path):
            self._about(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/tree/([^/]+)", url.path):
            self._tree(match[1])
        elif match := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", url.path):
            self._file(match[1], match[3])
        elif match := re.fullmatch(r"/storage/([\w.-]+/[\w.-]+)/(.+)", url.path):
            self._stored_file(match[1], match[2])
        else:
            self._send(404, b"{}", {})

    def _list(self, query: dict[str, list[str]]) -> None:
        words = query.get("search", [""])[0].casefold()
        filters = set(query.get("filter", []))
        found = [
            {"id": name, "modelId": name, "_id": name, "tags": [], "downloads": 0} | repository.listing
            for name, repository in self.server.repositories.items()
            if words in name.casefold() and filters <= set(repository.listing.get("tags", ()))
        ]
        self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _about(self, name: str, revision: str) -> None:
        repository = self.server.repositories.get(name)
        if repository is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            about = {
                "id": name,
                "modelId": name,
                "sha": COMMIT,
                "siblings": repository.siblings(),
                "cardData": repository.card,
                "gated": "manual" if repository.gated else False,
                "downloads": 7,
            }
            self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _tree(self, name: str) -> None:
        files = self.server.repositories[name].files
        tree = [
            {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for file, data in files.items()
        ]
        self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, file: str) -> None:
        repository = self.server.repositories.get(name)
        if repository is None or file not in repository.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repository.gated and token not in self.server.tokens:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
            return
        data = repository.files[file]
        sha256 = hashlib.sha256(data).hexdigest()
        if len(data) > LARGE_BYTES:  # as the real hub does, which keeps large files on another host
            where = f"http://localhost:{self.server.server_port}/storage/{name}/{file}"
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
            self._send(302, b"", {"Location": where, "X-Repo-Commit": COMMIT, **linked})
        else:
            self._send(200, data, {"ETag": f'"{sha256}"', "X-Repo-Commit": COMMIT})

    def _stored_file(self, name: str, file: str) -> None:
        """Send a large file, or the part of it that is asked for; a token must not come to this host."""
        if self.headers.get("Authorization"):
            self._send(400, b"", {})
            return
        repository = self.server.repositories[name]
        data = repository.files[file]
        headers = {"Accept-Ranges": "bytes"}
        if file in repository.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        status = 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            data, status = data[start : end + 1], 206
        self._send(status, data, headers, counted=f"{name}/{file}")

    def _send(self, status: int, data: bytes, headers: dict[str, str], counted: str = "") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        slowly = bool(counted) and len(data) > PART_BYTES * 2 and self.server.lasts_s
        parts = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
        self.server.sending += 1
        try:
            for part in parts:
                if counted:  # before the client has the last part, and ends
                    self.server.sent[counted] += len(part)
                self.wfile.write(part)
                if slowly:
                    time.sleep(self.server.lasts_s / len(parts))
        except OSError:
            self.close_connection = True
        finally:
            self.server.sending -= 1

    def log_message(self, *_: Any) -> None:
        pass
