"""The routes GET /incidents and GET /incidents/{id}."""

import math

from aiohttp import web

from host_agent.incidents import Incidents
from host_agent.listener.event_stream import sequence_number
from vestal.web.http_error import HttpError

DEFAULT_LIMIT, MAX_LIMIT = 50, 500


class IncidentRoutes:
    """Handles the routes under /incidents."""

    def __init__(self, incidents: Incidents) -> None:
        self._incidents = incidents

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/incidents", self.newest), web.get("/incidents/{id}", self.one)]

    async def newest(self, request: web.Request) -> web.Response:
        """Return the newest incidents, newest first, without those that ended before `?since=` (seconds since
        1970; by default 0, which leaves out none).

        At most `?limit=` incidents are returned, by default DEFAULT_LIMIT, and never more than MAX_LIMIT.
        Raises HttpError with status 400 if `?limit=` is not a whole number or `?since=` is not a number.
        """
        limit = min(sequence_number(request.query.get("limit", str(DEFAULT_LIMIT)), "limit"), MAX_LIMIT)
        since = _seconds(request.query.get("since", "0"))
        return web.json_response({"incidents": self._incidents.newest(limit, since)})

    async def one(self, request: web.Request) -> web.Response:
        """Return the incident with the id in the path, including its journal entries. Raises HttpError with
        status 404 if there is none, or 400 if the id is not a whole number.
        """
        found = self._incidents.find(sequence_number(request.match_info["id"], "id"))
        if found is None:
            raise HttpError("not_found", "There is no such incident, or it is too old to be remembered.")
        return web.json_response(found)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise HttpError("invalid_request", "since must be a number of seconds since 1970.")
    return seconds
