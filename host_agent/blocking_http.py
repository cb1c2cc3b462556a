"""A blocking HTTP client for commands, which run without an event loop. It uses no proxy, follows no
redirects, and opens one connection for each request.
"""

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

USER_AGENT = "vestal-cli"
"""The MLX server shows this name as the client in its list of the requests in flight."""


@contextlib.contextmanager
def open_response(
    method: str,
    url: str,
    *,
    body: dict[str, Any] | None = None,
    token: str = "",
    timeout_s: float,
    extra_headers: Mapping[str, str] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """Send a request, with `body` as JSON, and yield the response while its connection is open.

    `timeout_s` limits each single wait for the server. Raises OSError or http.client.HTTPException if the
    exchange fails.
    """
    parts = urlsplit(url)
    is_https = parts.scheme == "https"
    connection_class = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
    connection = connection_class(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)
    headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT, **(extra_headers or {})}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, None if body is None else json.dumps(body), headers)
        yield connection.getresponse()
    finally:
        connection.close()


def json_object(raw: bytes) -> dict[str, Any]:
    """Parse a response's body as JSON. Return an empty dict if the body is empty or is not a JSON object.
    Raises ValueError if the body is not JSON, or is nested too deeply to be read.
    """
    try:
        parsed = json.loads(raw or b"{}")
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    return parsed if isinstance(parsed, dict) else {}
