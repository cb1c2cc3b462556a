"""Any request at all against a real agent: an answer in time, no 500, and nothing done without the token."""

from __future__ import annotations

import json
import socket
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.hypothesis  # `make explore` runs these tests too
WITHIN_S = 10.0
OPEN_PATHS = ("/", "/health", "/assets/main.js")
SECRET = "the right token"
PATHS = st.one_of(
    st.sampled_from(
        ["/", "/health", "/status", "/recover", "/recover/plan", "/recover/reset", "/recover/x", "/journal"]
        + ["/journal?since=-1", "/journal?newest=9999999999999999999999", "/metrics", "/login-links"]
        + ["/services/mlx_server/stop", "/services/ollama/restart", "/services/%00/stop", "/../token", "//"]
        + ["/assets/main.js", "/assets/../token", "/assets/%2e%2e/status", "/assets//status", "/assets"]
    ),
    st.text(string.printable.replace(" ", "").translate({10: None, 13: None, 9: None, 11: None, 12: None}))
    .map(lambda text: "/" + text),
)  # fmt: skip
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "FOO"])
HOSTS = st.sampled_from(
    ["127.0.0.1", "localhost", "evil.example", "127.0.0.1.evil.example", "[::1]", ":", ""]
)
ORIGINS = st.sampled_from(
    [None, "null", "https://evil.example", "http://127.0.0.1", "http://localhost:1", ""]
)
KINDS = st.sampled_from(
    [None, "application/json", "text/plain", "application/json; charset=x", "multipart/x"]
)
TOKENS = st.sampled_from(
    [None, "", "Bearer", "Bearer wrong", "Bearer \x00", "Basic eDp5", f"Bearer {SECRET}"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["ollama", "mlx", "ts", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
BODIES = st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode()))


def exchange(port: int, sent: bytes) -> bytes:
    """Send the bytes, and return what comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as connection:
        connection.sendall(sent)
        got = b""
        while part := connection.recv(65536):
            got += part
    return got


def request(method: str, path: str, headers: dict[str, str | None], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def test_listener_refuses_any_tokenless_request_to_a_protected_path_without_side_effects(agent):
    agent.start()
    token = (agent.home / "token").read_text().strip()
    gateway = agent.gateway()

    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
    @given(METHODS, PATHS, HOSTS, ORIGINS, KINDS, TOKENS, BODIES)
    def any_request(method, path, host, origin, kind, given_token, body):
        if given_token and SECRET in given_token:
            if method != "GET" and not path.startswith("/recover/"):
                return  # with the token it may stop what it likes
            given_token = given_token.replace(SECRET, token)
        if path == "/events":
            return  # it has no end
        headers = {"Host": host, "Origin": origin, "Content-Type": kind, "Authorization": given_token}
        reply = exchange(agent.port, request(method, path, headers, body))
        head, _, answer = reply.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        assert 200 <= status < 500, reply
        if token not in (given_token or "") and path.partition("?")[0].partition("#")[0] not in OPEN_PATHS:
            assert status >= 400, reply
        if status >= 400 and method != "HEAD" and b"application/json" in head:
            assert json.loads(answer)["error"]["message"]
        assert token.encode() not in reply

    any_request()
    # Only a pass that a request began is a fault.
    assert not [entry for entry in agent.journal() if "asked by" in str(entry.get("reason", entry))]
    assert agent.gateway() == gateway
    assert not [entry for entry in agent.journal() if entry["event"].endswith("_requested")]


def test_listener_answers_malformed_http_without_a_500(agent):
    agent.start()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(min_size=1, max_size=400))
    def any_bytes(sent: bytes) -> None:
        with socket.create_connection(("127.0.0.1", agent.port), timeout=WITHIN_S) as connection:
            connection.sendall(sent + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            reply = connection.recv(65536)
        assert not reply.startswith(b"HTTP/1.1 5") and not reply.startswith(b"HTTP/1.0 5"), reply

    any_bytes()
    assert agent.status()["healthy"] in (True, False)
