"""The HTTP application: the routes of every dialect, and the conversion of errors to responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from mlx_server import VERSION
from mlx_server.gateway import engine_event_routes, health
from mlx_server.gateway.access import access_policy
from mlx_server.gateway.dialects.anthropic import routes as anthropic_routes
from mlx_server.gateway.dialects.api_document import DocumentedApp
from mlx_server.gateway.dialects.body_budget import BodyBudget, ShareBodies
from mlx_server.gateway.dialects.context import GatewayContext, request_id_of
from mlx_server.gateway.dialects.error_envelopes import error_response
from mlx_server.gateway.dialects.llama_cpp import routes as llama_cpp_routes
from mlx_server.gateway.dialects.ollama import routes as ollama_routes
from mlx_server.gateway.dialects.openai import routes as openai_routes
from mlx_server.gateway.dialects.rerank import routes as rerank_routes
from mlx_server.gateway.dialects.responses import routes as responses_routes
from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.errors import from_model_store, out_of_resources
from mlx_server.gateway.handover.forwarding import ForwardToSuccessor, HandedOver
from mlx_server.gateway.in_flight import routes as in_flight_routes
from mlx_server.gateway.in_flight.routes import RequestsInFlight
from mlx_server.gateway.kept_answers import routes as kept_answers_routes
from mlx_server.gateway.kept_answers.kept_answer import kept_answer_of
from mlx_server.gateway.kept_answers.middleware import KeepAnswers
from mlx_server.gateway.peers import routes as peer_routes
from mlx_server.gateway.peers.mirrored import MirroredAnswers
from mlx_server.gateway.peers.others import Peers
from mlx_server.gateway.peers.responses import ForwardToPeer
from mlx_server.gateway.requests.ticket import ClientDisconnected
from mlx_server.gateway.telemetry import Telemetry
from mlx_server.model_store import ModelStoreError
from vestal.platform.exhaustion import is_exhausted
from vestal.web.asgi_adapter import AsgiGuard
from vestal.web.http_error import HttpError

GENERATING_PATHS = frozenset(
    {
        "/api/generate",
        "/api/chat",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/messages",
        "/v1/responses",
        "/v1/responses/compact",
    }
)
"""The routes whose answers are stored, so that a client can come back for them, and which accept an
Idempotency-Key."""

CLIENT_CLOSED_REQUEST = 499  # nobody reads the response; logs of proxies show the status


def create_app(
    context: GatewayContext,
    engine: EngineSupervisor,
    telemetry: Telemetry,
    *,
    host_names: Callable[[], frozenset[str]] = frozenset,
    keyless_addresses: Callable[[], frozenset[str]] = frozenset,
    handed_over: HandedOver | None = None,
    peers: Peers | None = None,
    mirrored: MirroredAnswers | None = None,
    in_flight: RequestsInFlight | None = None,
) -> FastAPI:
    """Return the HTTP application. `host_names` and `keyless_addresses` are explained in `access_policy`.

    `handed_over` holds the next gateway, to which requests are forwarded once this one has handed over.
    `peers` are the gateways on other machines that finish the requests which this gateway cannot serve;
    `mirrored` holds copies of the peers' answers, which the peers store here; `in_flight` lists the requests
    of this gateway.
    """
    app = DocumentedApp(title="Vestal MLX server", version=VERSION, docs_url=None, redoc_url=None)
    app.include_router(health.router(engine, context.dispatcher, telemetry))
    app.include_router(engine_event_routes.router(telemetry.engine_events))
    requests = in_flight or RequestsInFlight(context.dispatcher, telemetry, context.keeper, context.clock)
    app.include_router(in_flight_routes.router(requests))
    app.include_router(ollama_routes.router(context))
    app.include_router(openai_routes.router(context))
    app.include_router(responses_routes.router(context))
    app.include_router(rerank_routes.router(context))
    app.include_router(llama_cpp_routes.router(context))
    app.include_router(anthropic_routes.router(context))
    mlx = context.config.mlx
    app.add_middleware(ShareBodies, budget=BodyBudget(mlx.body_budget_bytes))
    if context.keeper is not None:
        app.include_router(kept_answers_routes.router(context.keeper))
        app.include_router(
            peer_routes.router(context, context.keeper, mirrored or MirroredAnswers(), GENERATING_PATHS)
        )
        app.add_middleware(
            KeepAnswers,
            keeper=context.keeper,
            paths=GENERATING_PATHS,
            max_body_bytes=mlx.max_body_bytes,
            respond=lambda error, path: error_response(error, path, context.dispatcher.new_request_id()),
        )
    if peers is not None and context.keeper is not None:
        app.add_middleware(ForwardToPeer, peers=peers, keeper=context.keeper)
    app.add_middleware(ForwardToSuccessor, state=handed_over or HandedOver())
    policy = access_policy(mlx.api_key, host_names, keyless_addresses, mlx.origins, mlx.peer_key)
    app.add_middleware(AsgiGuard, policy=policy, respond=error_response)

    def failed(request: Request, error: HttpError) -> Response:
        """Return the response for `error`, with the request's id in its headers. A POST request that was
        refused before it got an id gets a new one; any other request without an id is answered without one.
        """
        request_id = request_id_of(request)
        if request_id is None and request.method == "POST":
            request_id = context.dispatcher.new_request_id()
        return error_response(error, request.url.path, request_id)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HttpError)
        if answer := kept_answer_of(request.scope):
            answer.fail(error)
        return failed(request, error)

    async def model_store_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ModelStoreError)
        return await http_error(request, from_model_store(error))

    async def system_error(request: Request, error: Exception) -> Response:
        """Return a 503 response if the gateway has run out of file descriptors or memory. Any other OSError
        is a bug, and is raised again.
        """
        assert isinstance(error, OSError)
        if not is_exhausted(error):
            raise error
        return await http_error(request, out_of_resources(error))

    async def bug(request: Request, error: Exception) -> Response:
        """Return the response to an unexpected exception. Starlette raises the exception again afterwards,
        and the server logs it.
        """
        message = f"The gateway failed on this request ({type(error).__name__}); its log has the details."
        return failed(request, HttpError("internal_error", message))

    app.add_exception_handler(HttpError, http_error)
    app.add_exception_handler(ClientDisconnected, _client_disconnected)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(ModelStoreError, model_store_error)
    app.add_exception_handler(OSError, system_error)
    app.add_exception_handler(Exception, bug)
    app.middleware_stack = app.build_middleware_stack()  # now: answers are taken up before the first request
    return app


async def _client_disconnected(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    if error.status_code == 405:
        headers = {**(error.headers or {}), "Allow": ", ".join(_methods(request))}
        refusal = HttpError("method_not_allowed", f"{path} does not take {method}.", headers=headers)
    else:
        refusal = HttpError("not_found", f"There is no {method} {path} here.", headers=error.headers)
    return error_response(refusal, path)


def _methods(request: Request) -> list[str]:
    """Return the HTTP methods that any route of the request's path accepts. Each route knows only its own."""
    routes = [
        route for route in _flat(request.app.routes) if route.matches(request.scope)[0] is not Match.NONE
    ]
    return sorted({method for route in routes for method in getattr(route, "methods", None) or ()})


def _flat(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Yield `routes`, with the routes of each included router in its place. The routers must be included
    without a prefix.
    """
    for route in routes:
        router = getattr(route, "original_router", None)
        yield from _flat(router.routes) if router is not None else (route,)
