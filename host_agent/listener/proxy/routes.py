"""Pass requests on to the gateway and the orchestrator, and stream their answers back."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from yarl import URL

from host_agent.listener.proxy import proxied_routes
from host_agent.listener.proxy.proxied_routes import Target, Upstream
from host_agent.services.http_probe import why_not_connected
from vestal.config import Config
from vestal.web.aiohttp_runner import until_client_leaves
from vestal.web.http_error import RETRY_AFTER_S, TEMPORARY, HttpError

MAX_BODY_BYTES = 8 * 1024 * 1024
"""The limit of a request's body, which the guard enforces. It fits a chat with its history, or with a
picture.
"""
PATHS = tuple(f"/{name}/" for name in Upstream)
CONNECT_WITHIN_S = 5.0
ANSWER_WITHIN_S = 30.0
REQUEST_HEADERS = ("Content-Type", "Accept", "Idempotency-Key")
RESPONSE_HEADERS = ("Content-Type", "X-Request-Id", "Retry-After")
USER_AGENT = "vestal-page"
NAMES = {Upstream.GATEWAY: "The MLX server", Upstream.ORCHESTRATOR: "The orchestrator"}


@dataclass(frozen=True)
class Upstreams:
    """What the proxy needs to reach the gateway and the orchestrator: an HTTP session, their local ports, and
    the API token that is sent to the orchestrator.
    """

    session: aiohttp.ClientSession
    ports: Mapping[Upstream, int]
    token: str

    @classmethod
    def of(cls, config: Config, session: aiohttp.ClientSession, token: str) -> Upstreams:
        """Return the Upstreams that reach the gateway and the orchestrator through `session`, at their ports
        in `config`. `token` is the API token that is sent to the orchestrator.
        """
        ports = {Upstream.GATEWAY: config.mlx.port, Upstream.ORCHESTRATOR: config.orchestrator.port}
        return cls(session, ports, token)


class ProxyRoutes:
    """Passes the requests below /gateway/ and /orchestrator/ on to these services, and their responses back.

    `upstreams` has what is needed to reach the services, and `headers` are added to each response.
    """

    def __init__(self, upstreams: Upstreams, headers: Mapping[str, str]) -> None:
        self._upstreams, self._headers = upstreams, headers
        self._lasting: set[asyncio.Task[web.StreamResponse]] = set()

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", f"/{name}/{{path:.*}}", self.forward) for name in Upstream]

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Pass the request on to its service, and the answer back to the client.

        Raises HttpError with status 404 or 411, or web.HTTPMethodNotAllowed, if the request is not allowed,
        and HttpError with status 502 if the service does not answer. If the client disconnects, the request
        to the service is cancelled.
        """
        target = _target(request)
        exchange = asyncio.ensure_future(self._exchange(request, target))
        if target.may_wait:
            self._lasting.add(exchange)
            exchange.add_done_callback(self._lasting.discard)
        return await until_client_leaves(request, exchange)

    def close(self) -> None:
        """Cancel the requests that have no time limit, such as those for generated answers. A client whose
        answer is cut off can still get the rest from the gateway.

        All other requests go on; each ends within ANSWER_WITHIN_S. New requests are not refused.
        """
        for exchange in list(self._lasting):
            exchange.cancel()

    async def _exchange(self, request: web.Request, target: Target) -> web.StreamResponse:
        name = NAMES[target.upstream]
        try:
            async with self._send(request, target) as answer:
                return await self._pass_back(request, answer, name)
        except TimeoutError:
            raise _unreachable(target, f"{name} does not answer") from None
        except aiohttp.ClientConnectorError as error:
            why = why_not_connected(error.os_error)
            raise _unreachable(target, f"{name} cannot be reached: {why}") from None
        except aiohttp.ClientError as error:
            # After the response has begun, the guard closes the connection, so that the client notices the
            # failure.
            why = str(error) or type(error).__name__
            raise _unreachable(target, f"{name} broke off its answer ({why})") from None

    def _send(self, request: web.Request, target: Target) -> aiohttp.client._RequestContextManager:
        """Return a context manager that sends the request to the service of `target` and provides its
        response. The request's body is streamed as it arrives from the client.
        """
        headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
        headers |= {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        if target.upstream is Upstream.ORCHESTRATOR:
            headers["Authorization"] = f"Bearer {self._upstreams.token}"
        if request.content_length is not None:
            headers["Content-Length"] = str(request.content_length)
        answer_within_s = None if target.may_wait else ANSWER_WITHIN_S
        return self._upstreams.session.request(
            request.method,
            URL(f"http://127.0.0.1:{self._upstreams.ports[target.upstream]}{target.path}", encoded=True),
            headers=headers,
            data=request.content.iter_any() if request.content_length else None,
            timeout=aiohttp.ClientTimeout(total=answer_within_s, sock_connect=CONNECT_WITHIN_S),
            allow_redirects=False,
        )

    async def _pass_back(
        self, request: web.Request, answer: aiohttp.ClientResponse, name: str
    ) -> web.StreamResponse:
        if (
            answer.status == http.HTTPStatus.UNAUTHORIZED
        ):  # else the page would think that its cookie is refused
            message = f"{name} refuses the agent's token; `vestal up` starts it with the right one."
            raise HttpError("upstream_refused", message, status=502)
        headers = {name: answer.headers[name] for name in RESPONSE_HEADERS if name in answer.headers}
        if answer.status in TEMPORARY:  # an older version of the service may not say when to ask again
            headers.setdefault("Retry-After", f"{RETRY_AFTER_S:g}")
        response = web.StreamResponse(status=answer.status, headers={**self._headers, **headers})
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        return response


def _target(request: web.Request) -> Target:
    """Return the destination of the request. Raises HttpError with status 404 if no route has this path, or
    411 if the body has no length; raises web.HTTPMethodNotAllowed if a route has this path with another
    method.
    """
    if request.body_exists and request.content_length is None:
        raise HttpError("length_required", "Send the body with a Content-Length.", status=411)
    if target := proxied_routes.find(request.method, request.raw_path):
        return target
    if allowed := proxied_routes.methods(request.raw_path):
        raise web.HTTPMethodNotAllowed(request.method, allowed)
    raise HttpError("not_found", f"Nothing at {ascii(request.path[:200])} is passed on.")


def _unreachable(target: Target, sentence: str) -> HttpError:
    code = f"{target.upstream}_unreachable"
    return HttpError(code, f"{sentence}; `vestal status` says why.", status=502)
