"""Listener, gateway and orchestrator refuse the same request with the same status and code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.component.vestal.web import services
from tests.component.vestal.web.services import MAX_BODY_BYTES, TOKEN, Service

RIGHT = b"Bearer " + TOKEN.encode()
OVERSIZED = b'{"a": "' + b"x" * MAX_BODY_BYTES + b'"}'
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(OVERSIZED), OVERSIZED)


@pytest.fixture(params=["listener", "gateway", "orchestrator"])
async def service(
    request: pytest.FixtureRequest, home: Path, free_port: Callable[[], int]
) -> AsyncIterator[Service]:
    started = {
        "listener": lambda: services.listener(home, free_port()),
        "gateway": lambda: services.gateway(home, free_port()),
        "orchestrator": lambda: services.orchestrator(free_port()),
    }[request.param]()
    async with started as service:
        yield service


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("no token", {"Authorization": None}, 401, "unauthorized"),
    ("wrong token", {"Authorization": b"Bearer wrong"}, 401, "unauthorized"),
    ("empty token", {"Authorization": b"Bearer "}, 401, "unauthorized"),
    ("another scheme", {"Authorization": b"Basic " + TOKEN.encode()}, 401, "unauthorized"),
    ("token that is not UTF-8", {"Authorization": b"Bearer \xff\xfe\x80"}, 401, "unauthorized"),
    ("header that is not UTF-8", {"Authorization": b"\xe4\xf6\xfc"}, 401, "unauthorized"),
    ("unknown expectation without a token", {"Authorization": None, "Expect": b"x"}, 401, "unauthorized"),
    ("unknown expectation of a foreign host", {"Host": b"evil.example", "Expect": b"x"}, 403, "forbidden"),
    ("unknown expectation at an unknown address", {"path": "/nowhere", "Expect": b"x"}, 404, "not_found"),
    ("two tokens", {"more": [(b"Authorization", RIGHT)]}, 401, "unauthorized"),
    ("foreign origin", {"Origin": b"https://evil.example"}, 403, "forbidden"),
    ("null origin", {"Origin": b"null"}, 403, "forbidden"),
    ("empty origin", {"Origin": b""}, 403, "forbidden"),
    ("origin that is not UTF-8", {"Origin": b"http://\xff"}, 403, "forbidden"),
    ("foreign host", {"Host": b"evil.example"}, 403, "forbidden"),
    ("foreign host with our port", {"Host": b"evil.example:8088"}, 403, "forbidden"),
    ("our name below a foreign one", {"Host": b"localhost.evil.example"}, 403, "forbidden"),
    ("user in the host", {"Host": b"me@localhost"}, 403, "forbidden"),
    ("empty host", {"Host": b""}, 403, "forbidden"),
    ("host that is not UTF-8", {"Host": b"\xff"}, 403, "forbidden"),
    ("missing host", {"Host": None}, 400, "invalid_request"),
    ("declared oversize", {"body": OVERSIZED}, 413, "too_large"),
    ("chunked oversize", {"body": CHUNKED, "chunked": True}, 413, "too_large"),
    ("malformed JSON", {"body": b"{"}, 400, "invalid_json"),
    ("empty body", {"body": b""}, 400, "invalid_json"),
    ("a list", {"body": b"[1]"}, 400, "invalid_json"),
    ("a string", {"body": b'"x"'}, 400, "invalid_json"),
    ("not UTF-8", {"body": b"\xff\xfe"}, 400, "invalid_json"),
    ("UTF-16", {"body": "{}".encode("utf-16")}, 400, "invalid_json"),
    ("NaN", {"body": b'{"mlx": NaN, "goal": NaN, "model": NaN}'}, 400, "invalid_json"),
    ("deep nesting", {"body": b"[" * 50_000}, 400, "invalid_json"),
    ("wrong type", {"body": b'{"mlx": 1, "goal": 1, "model": 1}'}, 400, "invalid_request"),
    ("unknown address", {"path": "/nowhere"}, 404, "not_found"),
    ("another method", {"method": "PUT"}, 405, "method_not_allowed"),
    ("open path with another method", {"path": "/health", "Authorization": None}, 401, "unauthorized"),
]


async def send(service: Service, change: dict[str, Any]) -> services.Response:
    change = dict(change)
    method, path, body = change.pop("method", "POST"), change.pop("path", None), change.pop("body", None)
    more = change.pop("more", [])
    if change.pop("chunked", False):
        change |= {"Content_Length": None, "Transfer_Encoding": b"chunked"}
    return await service.ask(method, path, body, *more, **change)


async def test_every_service_refuses_each_kind_of_bad_request_with_the_same_status_and_error_code(
    service: Service,
):
    found, wanted = {}, {}
    for name, change, status, code in REFUSED:
        response = await send(service, change)
        found[name], wanted[name] = (response.status, response.code), (status, code)
        assert "json" in response.headers["content-type"], name
        assert (response.headers.get("www-authenticate") == "Bearer") == (status == 401), name
        assert ("allow" in response.headers) == (status == 405), name
        assert TOKEN.encode() not in response.body
    assert found == wanted
    assert not service.done


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("as it should be", {}),
    ("scheme in lower case", {"Authorization": b"bearer  " + TOKEN.encode()}),
    ("host without port", {"Host": b"localhost"}),
    ("host with another port", {"Host": b"127.0.0.1:1"}),
    ("host in capitals, with the root's dot", {"Host": b"LOCALHOST.:80"}),
    ("IPv6 host", {"Host": b"[::1]"}),
    ("IPv6 host with port", {"Host": b"[::1]:8088"}),
    ("Docker's name of the host", {"Host": b"host.docker.internal:1"}),
    ("content type with a parameter", {"Content_Type": b"Application/JSON; charset=utf-8"}),
    ("unknown expectation", {"Expect": b"x"}),
    ("own origin", {"Host": b"localhost:1", "Origin": b"http://localhost:1"}),
]


async def test_service_accepts_every_valid_variant_of_the_request_headers(service: Service):
    for name, change in ACCEPTED:
        response = await send(service, change)
        assert (response.status, response.code) == service.accepted, name


@pytest.mark.parametrize("content_type", [b"text/plain", b"application/x-www-form-urlencoded", b"", None])
async def test_body_not_declared_as_json_gets_415_from_every_service_but_the_gateway_which_accepts_it(
    service: Service, content_type: bytes | None
):
    """The gateway accepts the bodies that Ollama accepts; see docs/decisions/0015-one-http-guard.md."""
    response = await service.ask(Content_Type=content_type)
    refused = (415, "unsupported_media_type")
    wanted = service.accepted if service.name == "gateway" else refused
    assert (response.status, response.code) == wanted


async def test_service_refuses_half_a_surrogate_pair_as_invalid_json_except_in_the_gateway(service: Service):
    """Clients cut long texts within an emoji; the gateway accepts that, and refuses the missing model."""
    response = await service.ask("POST", None, b'{"x": "\\ud800"}')
    wanted = "invalid_request" if service.name == "gateway" else "invalid_json"
    assert (response.status, response.code) == (400, wanted)


async def test_service_answers_malformed_http_with_a_400_in_json(service: Service):
    for raw in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        response = await service.exchange(raw)
        assert (response.status, response.code) == (400, "invalid_request")


async def test_service_answers_400_to_a_request_with_two_host_headers(service: Service):
    assert (await service.ask("POST", None, None, (b"Host", b"localhost"))).status == 400


AMBIGUOUS: list[tuple[str, bytes]] = [
    ("two lengths", b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
    ("two lengths, the other way round", b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
    ("two lengths, in odd letters", b"cOnTent-lEngth: 4\r\ntRansfer-eNcoding: Chunked\r\n"),
    ("two Content-Lengths", b"Content-Length: 4\r\nContent-Length: 40\r\n"),
    ("two Content-Lengths in a list", b"Content-Length: 4, 40\r\n"),
    ("a signed length", b"Content-Length: +4\r\n"),
    ("a hexadecimal length", b"Content-Length: 0x4\r\n"),
    ("a length with a space before the colon", b"Content-Length : 4\r\n"),
    ("an unknown encoding", b"Transfer-Encoding: xchunked\r\n"),
    ("chunks within another encoding", b"Transfer-Encoding: chunked, identity\r\n"),
]


@pytest.mark.parametrize("framing", [pytest.param(lines, id=name) for name, lines in AMBIGUOUS])
async def test_service_refuses_a_body_of_ambiguous_length_and_closes_the_connection(
    service: Service, framing: bytes
):
    """A proxy that reads another length than Vestal takes the second request for a part of the first body."""
    host = f"Host: 127.0.0.1:{service.port}\r\n".encode()
    head = b"Authorization: " + RIGHT + b"\r\nContent-Type: application/json\r\n"
    body = json.dumps(service.body).encode()
    smuggled = f"POST {service.path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n".encode()
    smuggled += host + head + b"\r\n" + body
    raw = f"POST {service.path} HTTP/1.1\r\n".encode() + host + head + framing
    response = await service.exchange(raw + b"\r\n0\r\n\r\n" + smuggled)
    assert response.status in (400, 501)
    assert b"HTTP/1.1" not in response.body, "the second request was answered"
    assert not service.done


def fetch(site: bytes, mode: bytes, target: bytes = b"empty") -> dict[str, Any]:
    """Return the headers in which a browser says what caused a request."""
    return {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": target}


OUR_ORIGIN = {"Origin": b"http://127.0.0.1"}
TWICE = [(b"Sec-Fetch-Site", b"Cross-Site")]
FETCHES: list[tuple[str, str, dict[str, Any], bool]] = [
    ("image of a foreign page", "GET", fetch(b"cross-site", b"no-cors", b"image"), False),
    ("frame of a foreign page", "GET", fetch(b"cross-site", b"navigate", b"iframe"), False),
    ("form of a foreign page", "POST", fetch(b"cross-site", b"navigate", b"document"), False),
    ("header sent twice", "GET", fetch(b"same-origin", b"cors") | {"more": TWICE}, False),
    ("link on a foreign page", "GET", fetch(b"cross-site", b"navigate", b"document"), True),
    ("page of this service", "GET", fetch(b"same-origin", b"cors"), True),
    ("address that the user typed", "GET", fetch(b"none", b"navigate", b"document"), True),
    (
        "page of an allowed Origin",
        "GET",
        fetch(b"cross-site", b"cors") | {"Origin": b"http://127.0.0.1"},
        True,
    ),
]


async def test_service_refuses_a_foreign_pages_request_that_has_no_origin_header(service: Service):
    for name, method, headers, is_allowed in FETCHES:
        change = {"Host": b"127.0.0.1", **headers}
        body = None if method == "POST" else b""
        response = await send(service, {"method": method, "path": service.open_path, "body": body, **change})
        assert (response.status, response.code) == ((200, "") if is_allowed else (403, "forbidden")), name


async def test_service_answers_400_to_a_body_in_malformed_chunks(service: Service):
    response = await send(service, {"body": b"zz\r\nx\r\n", "chunked": True})
    assert response.status == 400


HEADERS = st.sampled_from(
    [
        b"Authorization",
        b"Cookie",
        b"Host",
        b"Origin",
        b"Content-Type",
        b"X-API-Key",
        b"Last-Event-ID",
        b"Accept",
    ]
)
VALUES = st.binary(max_size=60).map(lambda value: value.translate(None, b"\r\n\0"))
PATHS = st.binary(max_size=20).map(lambda path: path.translate(None, b"\r\n\0 "))


async def test_service_never_answers_500_to_any_header_bytes(service: Service):
    loop = asyncio.get_running_loop()

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(HEADERS, VALUES), max_size=4), st.booleans(), PATHS)
    def each(more: list[tuple[bytes, bytes]], replaced: bool, path: bytes) -> None:
        names = {name.title().decode() for name, _ in more} if replaced else set()
        changed = {name.replace("-", "_"): None for name in names}
        target = f"/{path.decode('latin-1')}" if path else None
        for method, address in (("POST", None), ("GET", service.open_path), ("GET", target)):
            asked = service.ask(method, address, None if method == "POST" else b"", *more, **changed)
            response = asyncio.run_coroutine_threadsafe(asked, loop).result(20)
            assert response.status < 500, (more, path)

    await asyncio.to_thread(each)


async def test_listener_never_answers_500_to_unusual_bytes_in_the_request_url(
    home: Path, free_port: Callable[[], int]
):
    async with services.listener(home, free_port()) as service:
        for path in ("/?key=%ff", "/?key=%ED%A0%80", "/?key=", "/recover/%ff", "/services/%ff/stop"):
            response = await service.ask("GET", path, b"")
            assert response.status < 500, path
        denied = await service.ask("GET", "/x%ff%00", b"", Authorization=None)
        assert denied.status == 401


async def test_service_answers_an_address_with_invalid_unicode_with_a_404_in_valid_json(service: Service):
    response = await service.ask("GET", "/%ED%A0%80%00", b"")
    json.loads(response.body.decode("utf-8"))
    assert response.status == 404
