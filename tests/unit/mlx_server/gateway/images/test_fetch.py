"""Images are fetched only from addresses on the public internet, bounded, and each redirection is checked."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.fetch import ImageFetcher
from mlx_server.gateway.images.in_bodies import addresses_in, with_files
from mlx_server.gateway.images.public_addresses import ForbiddenAddress, checked_url, is_public
from tests.unit.mlx_server.gateway.images.test_headers import saved

PNG = saved("PNG")
Fetch = Callable[..., Awaitable[dict[str, bytes]]]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fc00::1", "ff02::1", "fec0::1", "2001:db8::1", "fe80::1%eth0"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
    ],
)
def test_image_address_in_a_private_network_is_not_public(address: str):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::808:808"]
)
def test_image_address_on_the_internet_is_public(address: str):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "text",
    [
        *("ftp://a/b.png", "file:///etc/passwd", "http:///a", "https://user:secret@a/b", "http://user@a/"),
        *("http://a:8080/b", "https://a:80/b", "http://a:443/", "http://[::1/a", "http://a:99999/"),
    ],
)
def test_image_url_with_a_user_name_or_a_forbidden_scheme_or_port_is_refused(text: str):
    with pytest.raises(ForbiddenAddress):
        checked_url(text)


class Site:
    """A site on loopback under the name `site.example`; `asked` has the paths that were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.port = 0
        self.is_over = asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        self.headers = dict(request.headers)
        match request.path:
            case "/a.png":
                return web.Response(body=PNG)
            case "/moved":
                return web.Response(status=302, headers={"Location": "/a.png"})
            case "/inside":
                return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{self.port}/a.png"})
            case "/around":
                return web.Response(status=302, headers={"Location": "/around"})
            case "/endless":
                response = web.StreamResponse()
                await response.prepare(request)
                try:
                    while True:
                        await response.write(bytes(64 * 1024))
                except ConnectionError:
                    return response
            case "/slow":
                await self.is_over.wait()
        return web.Response(status=404)

    def url(self, path: str, host: str = "site.example") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    found = Site()
    runner = web.ServerRunner(web.Server(found.answer))
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    found.port = runner.addresses[0][1]
    yield found
    found.is_over.set()
    await runner.cleanup()


NAMES = {"site.example": ["127.0.0.1"], "router.example": ["192.168.0.1"]}
NAMES["mixed.example"] = ["127.0.0.1", "10.0.0.1"]


def fetcher(site: Site, max_total_bytes: int = 10**7, timeout_s: float = 30.0) -> ImageFetcher:
    """Return a fetcher for which 127.0.0.1 is public if a name resolves to it, and private if written out."""

    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34" if each == "127.0.0.1" else each for each in NAMES[host]]

    async def reserve(size_bytes: int) -> None:
        assert size_bytes <= max_total_bytes

    ports = {"http": site.port}
    found = ImageFetcher(10**6, max_total_bytes, reserve, resolve=resolve, ports=ports, timeout_s=timeout_s)
    checked = found._resolver.resolve

    async def to_loopback(host: str, port: int = 0, family: Any = 0) -> Any:
        """Check as always, and then connect to the site of the test."""
        return [{**each, "host": "127.0.0.1"} for each in await checked(host, port)]

    found._resolver.resolve = to_loopback  # type: ignore[method-assign]
    return found


async def test_image_is_fetched_once_per_url_and_through_a_redirection(site: Site):
    found = await fetcher(site).fetch(
        [("f", site.url("/a.png")), ("g", site.url("/moved")), ("h", site.url("/a.png"))]
    )
    assert set(found.values()) == {PNG} and len(found) == 2
    assert site.asked == ["/a.png", "/moved", "/a.png"]
    assert not {"Cookie", "Authorization", "Referer"} & set(site.headers)


@pytest.mark.parametrize(
    ("path", "host", "asked", "reason"),
    [
        ("/a.png", "router.example", [], "not on the public internet"),
        ("/a.png", "mixed.example", [], "not on the public internet"),
        ("/a.png", "127.0.0.1", [], "not on the public internet"),
        ("/a.png", "[::ffff:127.0.0.1]", [], "not on the public internet"),
        ("/inside", "site.example", ["/inside"], "not on the public internet"),
        ("/around", "site.example", ["/around"] * 6, "redirects over 5 times"),
        ("/nothing", "site.example", ["/nothing"], "answered 404"),
        ("/endless", "site.example", ["/endless"], r"over 1000000 bytes \(mlx.max_image_bytes\)"),
    ],
)
async def test_image_url_that_must_not_or_cannot_be_fetched_is_refused_with_field_and_reason(
    site: Site, path: str, host: str, asked: list[str], reason: str
):
    with pytest.raises(BadRequest, match=reason) as refused:
        await fetcher(site).fetch([("messages.0.content.0.image_url", site.url(path, host))])
    assert refused.value.fields["field"] == "messages.0.content.0.image_url"
    assert site.asked == asked, "an address is checked before it is asked"


async def test_image_urls_with_numbers_that_the_system_resolves_to_loopback_are_refused(site: Site):
    async def reserve(size_bytes: int) -> None: ...

    real = ImageFetcher(10**6, 10**7, reserve, ports={"http": site.port})
    for host in ("localhost", "2130706433", "0x7f.1", "127.1"):
        with pytest.raises(BadRequest, match="public internet|could not be fetched"):
            await real.fetch([("f", site.url("/a.png", host))])
    assert not site.asked


async def test_image_fetch_beyond_its_time_or_its_total_bytes_fails_the_request(site: Site):
    with pytest.raises(BadRequest, match=r"within 0.2 s"):
        await fetcher(site, timeout_s=0.2).fetch([("f", site.url("/slow"))])
    with pytest.raises(BadRequest, match="mlx.max_body_bytes"):
        await fetcher(site, max_total_bytes=2 * len(PNG)).fetch([("f", site.url("/a.png"))] * 3)


def test_image_urls_are_found_and_replaced_only_in_image_fields():
    address = "https://example.com/a.png"
    body: dict[str, Any] = {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": address, "detail": "low"}}],
            },
            {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": address}}]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "input": {"type": "image", "source": address}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "content": [{"type": "image", "source": {"url": address}}]}
                ],
            },
        ],
        "input": [
            {"role": "user", "content": [{"type": "input_image", "image_url": address}]},
            {"image_url": address},
        ],
        "tools": [{"type": "image", "source": address}],
    }
    assert [path for path, _ in addresses_in(body)] == [
        "messages.0.content.0.image_url.url",
        "messages.1.content.0.source.url",
        "messages.3.content.0.content.0.source.url",
        "input.0.content.0.image_url",
    ]
    whole = with_files(body, {address: b"bytes"})
    assert not addresses_in(whole) and addresses_in(body)
    assert whole["messages"][0]["content"][0]["image_url"] == {
        "url": "data:;base64,Ynl0ZXM=",
        "detail": "low",
    }
    assert whole["messages"][2] == body["messages"][2] and whole["tools"] == body["tools"]
    assert whole["input"][1] == body["input"][1]
