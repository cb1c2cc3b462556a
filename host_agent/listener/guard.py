"""The guard of the listener: which requests are admitted, and which refusals the journal records."""

import logging
import time
from dataclasses import replace

from aiohttp import web

from host_agent.errors import HostAgentError, NotPossible, UnknownService
from host_agent.journal import Journal
from host_agent.listener.proxy import routes as proxy
from host_agent.listener.sessions import Sessions
from vestal.config import Config
from vestal.web.aiohttp_adapter import AiohttpGuard
from vestal.web.guard import LOCAL_NAMES, Policy
from vestal.web.http_error import HttpError

log = logging.getLogger("vestal")

MAX_BODY_BYTES = 64 * 1024
OPEN_PATHS = frozenset({"/", "/health"})
ASSETS = "/assets/"  # the files of the status page, which contain no data
DENIALS_EACH_S = 10.0


class Guard(AiohttpGuard):
    """The middleware around every route. A request needs the token, or the session cookie that a one-time
    link sets.
    """

    response_headers = {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }

    def __init__(self, config: Config, token: str, sessions: Sessions, journal: Journal) -> None:
        self._journal = journal
        self.cookie = f"vestal_{config.agent.port}"  # browsers share cookies between the ports of a host
        self._policy = Policy(
            token=token.encode(),
            token_hint=f"the token is in {config.home.token}, and `vestal status --open` opens the page.",
            host_names=LOCAL_NAMES | set(config.agent.bind),
            open_paths=OPEN_PATHS,
            open_prefixes=(ASSETS,),
            cookie_name=self.cookie.encode(),
            has_session=lambda session: sessions.is_open(session, time.time()),
            max_body_bytes=MAX_BODY_BYTES,
        )
        self._proxy_policy = replace(self._policy, max_body_bytes=proxy.MAX_BODY_BYTES)
        self._denials: dict[str, tuple[float, int]] = {}

    def policy(self) -> Policy:
        return self._policy

    def policy_for(self, request: web.Request) -> Policy:
        return self._proxy_policy if request.path.startswith(proxy.PATHS) else self._policy

    def admit_host(self, name: str) -> None:
        """Admit requests whose Host header has this name or address, from now on."""
        self._policy = replace(self._policy, host_names=self._policy.host_names | {name})
        self._proxy_policy = replace(self._policy, max_body_bytes=proxy.MAX_BODY_BYTES)

    def as_http_error(self, error: Exception) -> HttpError | None:
        if isinstance(error, UnknownService):
            return HttpError("not_found", str(error))
        if isinstance(error, NotPossible):
            return HttpError(error.code, str(error), status=409)
        return HttpError("invalid_request", str(error)) if isinstance(error, HostAgentError) else None

    def on_bug(self, request: web.Request, error: Exception) -> None:
        log.error("%s %r failed", request.method, request.path[:200], exc_info=error)

    def on_refused(self, request: web.Request, error: HttpError) -> None:
        """Record a request that was refused with 401 or 403 in the journal, for each error code at most once
        in 10 s. The next record counts the requests that were left out.
        """
        if error.status not in (401, 403):
            return
        now = time.monotonic()
        since, count = self._denials.get(error.code, (-DENIALS_EACH_S, 0))
        if now - since < DENIALS_EACH_S:
            self._denials[error.code] = (since, count + 1)
            return
        self._denials[error.code] = (now, 0)
        cause = f"{request.method} {ascii(request.path[:100])[1:-1]}: {error.code}"
        self._journal.record(
            "listener", "request_denied", cause, remote=request.remote or "?", unlisted=count
        )
