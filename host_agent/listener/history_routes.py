"""The route GET /history: the data for the plots of the last hour, day or week."""

from typing import Any

from aiohttp import web

from host_agent.history.history import History
from host_agent.history.plot import SPANS
from host_agent.incidents import Incidents
from vestal.web.http_error import HttpError

MOST_MARKS = 200


class HistoryRoutes:
    """The handler of GET /history."""

    def __init__(self, history: History, incidents: Incidents) -> None:
        self._history, self._incidents = history, incidents

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/history", self.history)]

    async def history(self, request: web.Request) -> web.Response:
        """Return the plot data of the time range `?range=` (hour, day or week; by default hour), and in
        `marks` the faults that began within this range. Raises HttpError with status 400 if there is no such
        range.
        """
        name = request.query.get("range", "hour")
        if name not in SPANS:
            raise HttpError("invalid_request", f"range must be one of {', '.join(SPANS)}.")
        drawn = self._history.plot(name)
        return web.json_response(drawn | {"marks": self._marks(drawn["times"][0])})

    def _marks(self, since: float) -> list[dict[str, Any]]:
        """Return the faults that began at `since` (seconds since 1970) or later, oldest first."""
        return [
            {"ts": each["began_at"], "service": next(iter(each["services"]), ""), "title": each["title"]}
            for each in reversed(self._incidents.newest(MOST_MARKS, since))
            if each["severity"] == "fault" and each["began_at"] >= since
        ]
