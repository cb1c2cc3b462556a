"""Decide whether a request is admitted, by its Host, Origin, token, size and content type. Pure.

A service on loopback is attacked from browsers: by DNS rebinding (a foreign name that points to this machine,
seen in `Host`), by pages of other origins (seen in `Origin` or `Sec-Fetch-Site`), and by `text/plain` POSTs,
which skip the CORS preflight.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from vestal.web.http_error import HttpError
from vestal.web.origins import OriginRules, host_name

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal"})
READING = frozenset({"GET", "HEAD"})
CLOSING = {"Connection": "close"}
JSON = b"application/json"
_MAX_LENGTH_DIGITS = 18


@dataclass(frozen=True)
class RequestHead:
    """The parts of a request that are known before its body is read.

    `headers` are the names and values as they were received: a name may be in upper or lower case, and may
    occur several times. `local_address` is the address of this machine that the connection came to.
    `http_version` is `1.0` or `1.1`.
    """

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    local_address: str
    http_version: str = "1.1"

    def values(self, name: bytes) -> list[bytes]:
        """Return every value of the header `name`, which is given in lower case."""
        return self._values_by_name.get(name, [])

    @cached_property
    def _values_by_name(self) -> dict[bytes, list[bytes]]:
        """Return the values of each header by its name in lower case, computed once for a dozen look-ups."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            found.setdefault(name.lower(), []).append(value)
        return found


@dataclass(frozen=True)
class Policy:
    """The rules by which one service admits requests.

    `token_hint`       the end of the sentence of a 401, which says where the token is
    `host_names`       the names that a Host header may have; `host_suffixes`: how further names may end
    `admits_hostless`  an HTTP/1.0 request may lack the Host header: HTTP/1.0 does not require it, and simple
                       probes do not send it, but every browser does
    `origins`          the pages that may use the service; None: only its own pages may
    `origin_hint`      the end of the sentence that refuses a page
    `open_paths`       paths that need no token for GET and HEAD; `open_prefixes`: beginnings of further ones
    `needs_token`      takes the local address of a connection, and returns whether its requests need a token
    `key_header`       a header that may carry the token too; it is read if `Authorization` is missing or has
                       another scheme than Bearer
    `has_session`      takes the value of the cookie `cookie_name`, and returns whether it replaces the token
    `json_only`        a body must be declared as JSON
    `other_token`      the token of programs that may use only paths with one of `other_token_prefixes`; a
                       request with this token may have any Host header
    """

    token: bytes
    token_hint: str
    host_names: frozenset[str] = LOCAL_NAMES
    host_suffixes: tuple[str, ...] = ()
    admits_hostless: bool = False
    origins: OriginRules | None = None
    origin_hint: str = ""
    open_paths: frozenset[str] = frozenset({"/health"})
    open_prefixes: tuple[str, ...] = ()
    needs_token: Callable[[str], bool] = lambda address: True
    key_header: bytes = b""
    cookie_name: bytes = b""
    has_session: Callable[[str], bool] = lambda session: False
    json_only: bool = True
    other_token: bytes = b""
    other_token_prefixes: tuple[str, ...] = ()
    max_body_bytes: int | None = None


def check(head: RequestHead, policy: Policy) -> HttpError | None:
    """Return the refusal of the request, or None if it is admitted."""
    return (
        _check_framing(head)
        or _check_host(head, policy)
        or _check_origin(head, policy)
        or _check_token(head, policy)
        or _check_size(head, policy)
        or _check_content_type(head, policy)
    )


def is_preflight(head: RequestHead, policy: Policy) -> bool:
    """Return whether this is a CORS preflight, and the service admits pages of other origins.

    A browser sends a preflight before the request itself, and never with a token.
    """
    return policy.origins is not None and head.method == "OPTIONS" and bool(head.values(b"origin"))


def admitted_origin(head: RequestHead, policy: Policy) -> bytes | None:
    """Return the Origin of the page that sent the request; None if a program sent it, or if the service does
    not admit the page.
    """
    origins = head.values(b"origin")
    if policy.origins is None or len(origins) != 1 or not policy.origins.admit(origins[0]):
        return None
    return origins[0]


def _check_framing(head: RequestHead) -> HttpError | None:
    """Return the refusal of a request that has both Content-Length and Transfer-Encoding, each of which says
    where the body ends; None if it has at most one of them.

    A proxy may go by one of the two headers and this server by the other. One of them would then take a part
    of the body for another request (RFC 9112, section 6.1). The connection is closed, since its next bytes
    may not be a request.
    """
    if not head.values(b"transfer-encoding") or not head.values(b"content-length"):
        return None
    message = "A request must not have both Content-Length and Transfer-Encoding; send one of them."
    return HttpError("invalid_request", message, headers=CLOSING)


def _check_host(head: RequestHead, policy: Policy) -> HttpError | None:
    hosts = head.values(b"host")
    if len(hosts) == 1 and _shows_other_token(head, policy):  # a page that rebinds a name does not know it
        return None
    if not hosts and head.http_version == "1.0" and policy.admits_hostless:
        return None
    if len(hosts) != 1:
        message = "A request must have exactly one Host header."
        return HttpError("invalid_request", message, headers=CLOSING)
    # An IP address that the connection came to is not a name that could have been rebound.
    name = host_name(hosts[0])
    if name in policy.host_names | {head.local_address} or name.endswith(policy.host_suffixes):
        return None
    return HttpError(
        "forbidden", f"This service is not called {_shown(hosts[0])}: use localhost as the Host."
    )


def _check_origin(head: RequestHead, policy: Policy) -> HttpError | None:
    origins = head.values(b"origin")
    if not origins:
        return _check_fetch_site(head, policy)
    if len(origins) == 1 and _is_allowed(origins[0], head, policy):
        return None
    refusal = f"Pages of the Origin {_shown(origins[0])} may not use this service"
    return HttpError("forbidden", f"{refusal}{policy.origin_hint}.")


def _check_fetch_site(head: RequestHead, policy: Policy) -> HttpError | None:
    """Return the refusal of a request that a browser sends on behalf of a foreign page; None if the request
    may pass. This function is for requests without an `Origin` header, as when a page loads an image.

    The browser's header `Sec-Fetch-Site` says where the page is from. A `cross-site` page is foreign. So is
    a `same-site` page (such as one of the same host but another port) if `policy.origins` is None. Programs
    other than browsers do not send this header, so their requests pass. If a user follows a link on a foreign
    page, the request passes too, because the browser shows the response to the user alone. Such a request is
    a GET or HEAD with `Sec-Fetch-Mode: navigate` and `Sec-Fetch-Dest: document`.
    """
    sites = [site.lower() for site in head.values(b"sec-fetch-site")]
    foreign = {b"cross-site"} if policy.origins is not None else {b"cross-site", b"same-site"}
    if not foreign.intersection(sites):
        return None
    modes, targets = head.values(b"sec-fetch-mode"), head.values(b"sec-fetch-dest")
    if head.method in READING and modes == [b"navigate"] and targets == [b"document"]:
        return None
    return HttpError("forbidden", "Pages of another site may not use this service (see Sec-Fetch-Site).")


def _is_allowed(origin: bytes, head: RequestHead, policy: Policy) -> bool:
    if policy.origins is not None:
        return policy.origins.admit(origin)
    # Only the client knows the port that it reached the service by (a published or forwarded one), so the
    # same origin means the same text as in Host.
    return origin.lower() in [b"http://" + host.lower() for host in head.values(b"host")]


def _check_token(head: RequestHead, policy: Policy) -> HttpError | None:
    is_open = head.path in policy.open_paths or head.path.startswith(policy.open_prefixes)
    if (is_open and head.method in READING) or is_preflight(head, policy):
        return None
    if not policy.needs_token(head.local_address) or _shows_other_token(head, policy):
        return None
    if len(head.values(b"authorization")) > 1:
        return HttpError("unauthorized", f"Send one Authorization header, not several; {policy.token_hint}")
    given = bearer_of(head.headers)
    if given is None and policy.key_header:
        given = next(iter(head.values(policy.key_header)), None)
    if given is not None:
        if policy.token and hmac.compare_digest(given.strip(), policy.token):
            return None
        return HttpError("unauthorized", f"The token is wrong; {policy.token_hint}")
    session = _session(head, policy)
    if session is not None and policy.has_session(session):
        return None
    return HttpError("unauthorized", f"Send `Authorization: Bearer <token>`; {policy.token_hint}")


def _shows_other_token(head: RequestHead, policy: Policy) -> bool:
    """Return whether the request shows `other_token`, and its path is one that this token admits."""
    if not policy.other_token or not head.path.startswith(policy.other_token_prefixes):
        return False
    given = bearer_of(head.headers)
    return given is not None and hmac.compare_digest(given, policy.other_token)


def _check_size(head: RequestHead, policy: Policy) -> HttpError | None:
    limit = policy.max_body_bytes
    length = next(iter(head.values(b"content-length")), b"0")
    if limit is None or not length.isdigit():  # the HTTP parser refuses a malformed length
        return None
    return too_large(limit) if len(length) > _MAX_LENGTH_DIGITS or int(length) > limit else None


def too_large(limit_bytes: int) -> HttpError:
    """Return the refusal of a body over `limit_bytes`."""
    message = f"The body is over the limit of {limit_bytes} bytes; send less."
    return HttpError("too_large", message, max_body_bytes=limit_bytes)


def _check_content_type(head: RequestHead, policy: Policy) -> HttpError | None:
    if not policy.json_only or head.method in READING:
        return None
    # A form of another page could send a POST without a body, and the browser adds the cookie to it.
    by_cookie = bool(policy.cookie_name) and bearer_of(head.headers) is None
    if not by_cookie and not _has_body(head):
        return None
    types = head.values(b"content-type")
    if len(types) == 1 and types[0].partition(b";")[0].strip().lower() == JSON:
        return None
    return HttpError("unsupported_media_type", "Send the body with `Content-Type: application/json`.")


def _has_body(head: RequestHead) -> bool:
    lengths = head.values(b"content-length")
    return bool(head.values(b"transfer-encoding")) or any(length.strip(b"0 ") for length in lengths)


def bearer_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """Return what follows `Bearer` in the Authorization header; None if there is not exactly one such header,
    or if it has another scheme.
    """
    given = [value for name, value in headers if name.lower() == b"authorization"]
    scheme, _, token = given[0].strip().partition(b" ") if len(given) == 1 else (b"", b"", b"")
    return token.strip() if scheme.lower() == b"bearer" else None


def _session(head: RequestHead, policy: Policy) -> str | None:
    for cookies in head.values(b"cookie") if policy.cookie_name else ():
        for cookie in cookies.split(b";"):
            name, _, value = cookie.strip().partition(b"=")
            if name == policy.cookie_name:
                return value.decode("latin-1")
    return None


def _shown(value: bytes) -> str:
    """Return a header's value as it is shown in a message: short, and in printable ASCII."""
    return ascii(value[:80].decode("latin-1"))
