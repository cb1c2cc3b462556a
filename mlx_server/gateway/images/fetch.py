"""Fetch images by their URLs, for a gateway whose setting `mlx.image_urls` allows it.

Each host name is resolved here, and the connection uses exactly the IP addresses that were checked. A name
whose addresses change after the check therefore cannot lead to another address. A redirect is checked like
the first URL.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mlx_server.gateway.images.files import refused
from mlx_server.gateway.images.public_addresses import (
    PORTS,
    ForbiddenAddress,
    IpAddress,
    checked_url,
    is_public,
    literal_address,
)

MAX_REDIRECTS = 5
TIMEOUT_S, CONNECT_TIMEOUT_S = 30.0, 10.0
"""The time limits for all images of a request together, and for making one connection."""
CHUNK_BYTES = 64 * 1024
_REDIRECTIONS = frozenset((301, 302, 303, 307, 308))

Resolve = Callable[[str, int], Awaitable[Iterable[str]]]
"""A function that returns the IP addresses of a host name and a port."""
Reserve = Callable[[int], Awaitable[None]]
"""A function that reserves memory for all images together, given their size in bytes. It is awaited before
the bytes are stored, and may raise."""


async def resolve_name(host: str, port: int) -> list[str]:
    """Return the IP addresses that the system finds for a host name. Raises OSError if the name cannot be
    resolved.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class ImageFetcher:
    """Fetches the images of one request: at most `max_bytes` for each, and `max_total_bytes` for all
    together.

    Before each received part is stored, `reserve` is awaited with the total size of the images so far. It
    reserves memory for them, or raises if there is none. `resolve` returns the addresses of a host name.
    Connections are made only to addresses for which `is_allowed` returns True, and only to the port that
    `ports` gives for the URL's scheme. `timeout_s` limits the time for all images together.
    """

    def __init__(
        self,
        max_bytes: int,
        max_total_bytes: int,
        reserve: Reserve,
        *,
        resolve: Resolve = resolve_name,
        is_allowed: Callable[[IpAddress], bool] = is_public,
        ports: dict[str, int] = PORTS,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._reserve = reserve
        self._resolver = _CheckedResolver(resolve, is_allowed)
        self._is_allowed = is_allowed
        self._ports = ports
        self._timeout_s = timeout_s
        self._total_bytes = 0
        self._times: Counter[str] = Counter()

    async def fetch(self, sources: Sequence[tuple[str, str]]) -> dict[str, bytes]:
        """Return the fetched files by their URLs. `sources` are pairs of an image's path in the body and its
        URL.

        A URL that occurs several times is fetched once, but counts towards the limits each time. Raises
        BadRequest, which names the path, if an image cannot or must not be fetched or is too large. If there
        is no memory for the images, raises the exception of the constructor's argument `reserve`.
        """
        found: dict[str, bytes] = {}
        self._times = Counter(address for _, address in sources)
        first_fields: dict[str, str] = {}
        for field, address in sources:
            first_fields.setdefault(address, field)
        connector = aiohttp.TCPConnector(resolver=self._resolver, use_dns_cache=False, limit=4)
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            auto_decompress=False,
            headers={"User-Agent": "vestal", "Accept": "image/*", "Accept-Encoding": "identity"},
        ) as session:
            deadline = asyncio.get_running_loop().time() + self._timeout_s
            for address, field in first_fields.items():
                try:
                    async with asyncio.timeout_at(deadline):
                        found[address] = await self._one(session, address, field)
                except TimeoutError:
                    raise refused(field, f"could not be fetched within {self._timeout_s:g} s") from None
                except ForbiddenAddress as error:
                    raise refused(field, f"is not fetched: its address {error}") from None
                except (aiohttp.ClientError, OSError, ValueError) as error:
                    reason = _cause(error)
                    if isinstance(reason, ForbiddenAddress):
                        raise refused(field, f"is not fetched: its address {reason}") from None
                    raise refused(field, f"could not be fetched ({str(error)[:200]})") from error
        return found

    async def _one(self, session: aiohttp.ClientSession, address: str, field: str) -> bytes:
        """Return the content of the file at the URL `address`. `field` is the image's path in the body, which
        errors name.

        Raises ForbiddenAddress if the URL or a redirect is not allowed, and BadRequest if the file is too
        large, is redirected too often, or does not come with status 200. Exceptions of aiohttp, and of the
        function `reserve` that was passed to the constructor, are passed on.
        """
        url = self._checked(address)
        for _ in range(MAX_REDIRECTS + 1):
            async with session.get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTIONS:
                    return await self._content(response, field, self._times[address])
                url = self._checked(str(url.join(URL(response.headers.get("Location", "")))))
        raise refused(field, f"could not be fetched: its address redirects over {MAX_REDIRECTS} times")

    def _checked(self, address: str) -> URL:
        """Return the URL if it may be fetched, or raise ForbiddenAddress. A host name is only checked later,
        by the resolver.
        """
        url = checked_url(address, self._ports)
        literal = literal_address(url.host or "")
        if literal is not None and not self._is_allowed(literal):
            raise ForbiddenAddress("is not on the public internet")
        return url

    async def _content(self, response: aiohttp.ClientResponse, field: str, times: int) -> bytes:
        if response.status != 200:
            raise refused(field, f"could not be fetched: its server answered {response.status}")
        self._check_size(response.content_length or 0, field, times)
        parts: list[bytes] = []
        size_bytes = 0
        async for part in response.content.iter_chunked(CHUNK_BYTES):
            size_bytes += len(part)
            self._check_size(size_bytes, field, times)
            await self._reserve(self._total_bytes + size_bytes * times)
            parts.append(part)
        self._total_bytes += size_bytes * times
        return b"".join(parts)

    def _check_size(self, size_bytes: int, field: str, times: int) -> None:
        """Raise BadRequest, which names `field` (the image's path in the body), if an image of `size_bytes`
        is too large, alone or together with the images before it. `times` is how often the image occurs in
        the body.
        """
        if size_bytes > self._max_bytes:
            most = f"{self._max_bytes} bytes (mlx.max_image_bytes)"
            raise refused(field, f"has over {most}; send a smaller one")
        if self._total_bytes + size_bytes * times > self._max_total_bytes:
            raise refused(
                field, "makes the request longer than mlx.max_body_bytes; send fewer or smaller ones"
            )


class _CheckedResolver(AbstractResolver):
    """Resolves host names for aiohttp's connector, which connects to the returned addresses. Raises
    ForbiddenAddress even if only one of a host's addresses is not allowed.

    The constructor's argument `resolve` returns the addresses of a host name, and `is_allowed` says whether a
    connection to an address is allowed.
    """

    def __init__(self, resolve: Resolve, is_allowed: Callable[[IpAddress], bool]) -> None:
        self._resolve = resolve
        self._is_allowed = is_allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host name. Raises ForbiddenAddress if one of them is not allowed."""
        found = [ipaddress.ip_address(each) for each in await self._resolve(host, port)]
        if not all(map(self._is_allowed, found)):
            raise ForbiddenAddress("is not on the public internet")
        return [self._result(host, port, address) for address in found]

    def _result(self, host: str, port: int, address: IpAddress) -> ResolveResult:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        return ResolveResult(
            hostname=host,
            host=str(address),
            port=port,
            family=family,
            proto=0,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )

    async def close(self) -> None:
        """Do nothing, because no resource is held."""


def _cause(error: BaseException) -> BaseException:
    """Return the root cause of an error: the last error in its chain of causes."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error
