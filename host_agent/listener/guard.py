"""Who may come in: the Host and Origin of the request, its size, and its token or cookie.

A local webhook is attacked from browsers: by `text/plain` POSTs, which skip preflight, and by DNS rebinding.
Hence the names a Host may have, the Origins that are ours, and JSON only.
"""

import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from host_agent.errors import HostAgentError
from host_agent.journal import Journal
from host_agent.listener import refusals
from host_agent.listener.refusals import Forbidden, NotJson, Refusal, TooLarge, Unauthorized
from host_agent.listener.sessions import Sessions
from vestal.config import Home

log = logging.getLogger("vestal")

MAX_BODY_BYTES = 64 * 1024
OPEN_PATHS = frozenset({"/", "/health"})
READING = frozenset({"GET", "HEAD"})
OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal"})
DENIALS_EACH_S = 10.0
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """The middleware around every route."""

    def __init__(self, home: Home, token: str, port: int, sessions: Sessions, journal: Journal) -> None:
        self._home, self._token, self._port = home, token.encode(), port
        self._sessions, self._journal = sessions, journal
        self._names = set(OWN_NAMES)
        self._denied: dict[str, tuple[float, int]] = {}

    @property
    def cookie(self) -> str:
        """Browsers share cookies between the ports of a host, so the name has the port."""
        return f"vestal_{self._port}"

    def allow_name(self, address: str) -> None:
        """An address that we listen on may stand in Host."""
        self._names.add(address)

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check(request)
            response = await handler(request)
        except Refusal as refusal:
            self._note(request, refusal)
            response = refusals.answer(refusal)
        except HostAgentError as error:
            response = refusals.answer(refusals.of(error))
        except web.HTTPException as error:
            response = error if error.status < 400 else refusals.of_http(error)
        except ConnectionError:
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = refusals.error_response(
                500, "internal_error", "That failed; the agent's log says why.", {}
            )
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def _check(self, request: web.Request) -> None:
        if _host_name(request.headers.get("Host", "")) not in self._names:
            raise Forbidden("The Host of this request is not an address of this machine: use 127.0.0.1.")
        origin = request.headers.get("Origin")
        if origin is not None and not self._is_ours(origin):
            raise Forbidden("Pages of other origins may not call the agent.")
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise TooLarge("The body is over 64 KiB.")
        if request.path in OPEN_PATHS and request.method in READING:
            return
        self._authenticate(request)

    def _authenticate(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if hmac.compare_digest(given.strip().encode(), self._token):
                return
            raise Unauthorized(f"The token is wrong; the right one is in {self._home.token}.")
        session = request.cookies.get(self.cookie)
        if not session or not self._sessions.holds(session, time.monotonic()):
            raise Unauthorized(
                f"A token is needed: send `Authorization: Bearer` with the text of {self._home.token}, "
                "or open the page with `vestal status --open`."
            )
        if request.method not in READING and request.content_type != "application/json":
            raise NotJson("Send Content-Type: application/json.")

    def _is_ours(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
            return parts.scheme == "http" and parts.hostname in self._names and parts.port == self._port
        except ValueError:
            return False

    def _note(self, request: web.Request, refusal: Refusal) -> None:
        """Denials are in the journal, and a flood of them does not drown it."""
        if not isinstance(refusal, Unauthorized | Forbidden):
            return
        now = time.monotonic()
        since, count = self._denied.get(refusal.code, (-DENIALS_EACH_S, 0))
        if now - since < DENIALS_EACH_S:
            self._denied[refusal.code] = (since, count + 1)
            return
        self._denied[refusal.code] = (now, 0)
        cause = f"{request.method} {request.path[:100]}: {refusal.code}"
        self._journal.record(
            "listener", "request_denied", cause, remote=request.remote or "?", unlisted=count
        )


def _host_name(host: str) -> str:
    """`[::1]:9099` → `::1`, `LOCALHOST:9099` → `localhost`; anything odd is no name."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    odd = not host or parts.username is not None or parts.path or parts.query or parts.fragment
    return "" if odd else (parts.hostname or "").rstrip(".")
