"""Decide which requests the orchestrator's API admits, and how errors are answered."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from orchestrator.errors import (
    BackendError,
    DatabaseFailed,
    IdempotencyConflict,
    OrchestratorError,
    QueueFull,
)
from orchestrator.events import emit
from orchestrator.storage.database import ANSWERING
from vestal.web.aiohttp_adapter import AiohttpGuard, Handler
from vestal.web.guard import LOCAL_NAMES, Policy
from vestal.web.http_error import HttpError

MAX_BODY_BYTES = 64 * 1024
SERVICE_NAME = "orchestrator"  # what the other containers of the stack call this one
EVERYWHERE = frozenset({"0.0.0.0", "::"})
BACKEND_RETRY_S = 15.0
DATABASE_RETRY_S = 5.0
QUEUE_RETRY_S = 30.0  # a task takes seconds to minutes


class Guard(AiohttpGuard):
    """The middleware around every route, which checks requests and converts errors to HTTP answers.

    Every request except GET /health needs the bearer token `token`. Its Host header must name this service,
    for example as `localhost` or by `bind`, the address on which the API listens. `database_failure` converts
    a database library's exception to DatabaseFailed; it returns None for any other exception.
    """

    def __init__(
        self,
        token: str,
        bind: str,
        database_failure: Callable[[Exception], DatabaseFailed | None] = lambda error: None,
    ) -> None:
        self._database_failure = database_failure
        self._policy = Policy(
            token=token.encode(),
            token_hint="`vestal token` on the host prints it.",
            host_names=LOCAL_NAMES | {SERVICE_NAME} | ({bind.lower()} - EVERYWHERE),
            max_body_bytes=MAX_BODY_BYTES,
        )

    def policy(self) -> Policy:
        return self._policy

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle a request. If the database fails meanwhile, report that at once instead of waiting until it
        works, because a client waits for the answer.
        """
        ANSWERING.set(True)  # for this request only: aiohttp gives each connection's task its own context
        return await super().handle(request, handler)

    def as_http_error(self, error: Exception) -> HttpError | None:
        error = self._database_failure(error) or error
        if isinstance(error, IdempotencyConflict):
            return HttpError(error.code, error.message, status=409)
        if isinstance(error, QueueFull):
            return HttpError(error.code, error.message, status=503, retry_after_s=QUEUE_RETRY_S)
        if isinstance(error, BackendError):
            return HttpError(error.code, error.message, status=503, retry_after_s=BACKEND_RETRY_S)
        if isinstance(error, DatabaseFailed):
            return HttpError(error.code, error.message, status=503, retry_after_s=DATABASE_RETRY_S)
        if isinstance(error, OrchestratorError):
            return HttpError(error.code, error.message, status=500)
        return None

    def on_bug(self, request: web.Request, error: Exception) -> None:
        emit("request_failed", repr(error), method=request.method, path=request.path)
