"""The routes GET /requests, GET /requests/events and DELETE /requests/{id}."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_server.gateway import errors
from mlx_server.gateway.in_flight.entries import PassedOn, in_flight
from mlx_server.gateway.in_flight.followers import Followers
from mlx_server.gateway.json_text import JsonResponse
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.telemetry import Telemetry
from vestal.supervision import Clock
from vestal.web import server_sent_events

PASSED_ON = (
    "Another machine is being asked to go on with this request, so that it cannot be cancelled now; try "
    "again in a few seconds."
)


class OtherMachines(Protocol):
    """The gateways on other machines, which continue some of this gateway's requests."""

    @property
    def read_here(self) -> Iterable[PassedOn]:
        """Return the requests that other machines continue while their clients read the answers here."""

    async def cancel(self, answer_id: str) -> bool:
        """Cancel the request with the id `answer_id` on the machine that continues it. Return False if no
        machine continues such a request.
        """


class RequestsInFlight:
    """Lists and cancels requests. `keeper` is None if answers are not stored; `others` is None if there are
    no other machines.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        telemetry: Telemetry,
        keeper: AnswerKeeper | None,
        clock: Clock,
        others: OtherMachines | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._telemetry = telemetry
        self._keeper = keeper
        self._clock = clock
        self._others = others
        self.followers = Followers(self.report, clock)

    def report(self) -> dict[str, Any]:
        """Return the body of GET /requests."""
        loaded = self._dispatcher.loaded_models.names
        held = self._keeper.offered if self._keeper is not None else ()
        elsewhere = self._others.read_here if self._others is not None else ()
        listed = in_flight(self._dispatcher.in_flight(), loaded, self._clock.now(), held, elsewhere)
        return {**listed, "totals": self._telemetry.totals()}

    async def cancel(self, request_id: str) -> None:
        """Cancel the request with this id, on this machine or on the one that continues it. Raises NotFound
        if no such request is in flight. Raises Conflict if another machine is being asked just now to
        continue the request, so that the caller must try again in a few seconds.
        """
        if self._keeper is not None and request_id in self._keeper.offered:
            raise errors.Conflict("request_passed_on", PASSED_ON)
        if not (self._dispatcher.cancel(request_id) or await self._cancel_elsewhere(request_id)):
            asked = errors.quoted(request_id)
            raise errors.NotFound(
                "not_found", f"Request {asked} is not in flight: it has ended, or never was."
            )
        self._telemetry.emit("request_cancelled", "asked for by DELETE /requests", id=request_id)

    async def _cancel_elsewhere(self, request_id: str) -> bool:
        if self._others is None or not await self._others.cancel(request_id):
            return False
        if self._keeper is not None:
            self._keeper.forget(request_id)  # the request must not continue on this machine either
        return True


def router(requests: RequestsInFlight) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(prefix="/requests")

    @routes.head("", include_in_schema=False)
    @routes.get("")
    async def listed(http: Request) -> Response:
        return JsonResponse(requests.report())

    @routes.get(
        "/events", responses={200: {"content": {server_sent_events.MEDIA_TYPE: {"schema": {}}}}, 503: {}}
    )
    async def followed(http: Request) -> Response:
        return requests.followers.response()

    @routes.delete("/{request_id}", responses={404: {}, 409: {}})
    async def cancel(request_id: str) -> Response:
        await requests.cancel(request_id)
        return JsonResponse({"id": request_id, "state": "cancelled"})

    return routes
