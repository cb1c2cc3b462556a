"""GET /v1/streams/{id}: return a stored answer again, from any of its frames on, in the API dialect of its
request.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer
from mlx_server.gateway.kept_answers.middleware import follow
from vestal.web.http_error import HttpError

FROM = {"name": "from", "in": "query", "schema": {"type": "integer", "minimum": 0}}


def router(keeper: AnswerKeeper) -> APIRouter:
    """Return the routes below /v1/streams."""
    routes = APIRouter(prefix="/v1/streams")

    @routes.get("/{answer_id}", responses={400: {}, 404: {}, 410: {}}, openapi_extra={"parameters": [FROM]})
    async def stream(http: Request, answer_id: str) -> Response:
        first_frame = first_frame_of(http)
        return Followed(await keeper.find(answer_id), first_frame)

    @routes.head("/{answer_id}", include_in_schema=False)
    async def is_kept(answer_id: str) -> Response:
        """Return a response with status 200 if the answer is running or in the answer log. The answer's
        request is not resumed. Raises HttpError if the answer is in neither place.
        """
        if not keeper.has(answer_id):
            keeper.check_logged(answer_id)
        return Response()

    return routes


class Followed(Response):
    """A response with the frames of a stored answer from number `first_frame` (from 0) to the end of the
    answer, and with the answer's own status and headers. If the answer is still running, the response
    continues until the answer ends. A frame is one part of the body, such as a server-sent event.
    """

    def __init__(self, answer: KeptAnswer, first_frame: int) -> None:
        self.status_code = 200
        self.background = None
        self._answer = answer
        self._first_frame = first_frame

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await follow(self._answer, self._first_frame, receive, send)


def first_frame_of(http: Request) -> int:
    """Return the number in the query parameter `from`; 0 without one. Raises HttpError if it is not a
    number.
    """
    given = http.query_params.get("from")
    if given is None or given == "":
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        message = f"from: give the number of frames that you have received, not {given[:40]!r}"
        raise HttpError("invalid_request", message)
    return int(given)
