"""The answers that peers continue: which peer has which answer, and how clients of this gateway read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.responses import Response

from mlx_server.gateway.answer_log import Accepted
from mlx_server.gateway.dialects.error_envelopes import error_response
from mlx_server.gateway.errors import Unavailable
from mlx_server.gateway.in_flight.client_names import client_name
from mlx_server.gateway.in_flight.entries import PassedOn
from mlx_server.gateway.kept_answers.rendering import CopyElsewhere, Message, Send
from mlx_server.gateway.peers.passed_on import model_of
from mlx_server.gateway.peers.peer import Peer, PeerLost
from mlx_server.gateway.peers.polling import PeerState, wait_until_dead
from mlx_server.gateway.requests.ticket import RequestOrigin
from vestal.config import canonical
from vestal.supervision import Clock

DEAD_AFTER_S = 10.0
"""If a peer's /health has not answered for this long, reading an answer from the peer is given up."""
MAX_PASSED_ON = 1000
LOST = "The machine that went on with this answer is lost; send the request again."


class AnswersElsewhere:
    """Remembers which peer continues which answer, for the latest MAX_PASSED_ON answers, and sends such an
    answer from its peer to the clients of this gateway. `emit` writes an event if a peer is lost meanwhile.

    The attribute `read_here` has one entry for each client that is now being sent an answer from a peer. An
    entry describes the request of the answer, for the list of all requests in flight (GET /requests).
    """

    def __init__(self, clock: Clock, emit: Callable[..., None]) -> None:
        self.read_here: list[PassedOn] = []
        self._clock = clock
        self._emit = emit
        self._passed_on: dict[str, Peer] = {}

    def where(self, answer_id: str) -> Peer | None:
        """Return the peer that continues the answer; None if no peer does."""
        return self._passed_on.get(answer_id)

    def note(self, head: Accepted, peer: Peer, state: PeerState) -> CopyElsewhere:
        """Record that `peer` continues the answer to the request `head`. Return a function that reads this
        answer from the peer and sends it to a client. The function gives up once `state`, the state of the
        peer, says that the peer is dead.
        """
        self._passed_on.pop(head.id, None)
        self._passed_on[head.id] = peer
        while len(self._passed_on) > MAX_PASSED_ON:
            del self._passed_on[next(iter(self._passed_on))]
        return partial(self._copy, peer, state, self._described(head, peer))

    def _described(self, head: Accepted, peer: Peer) -> PassedOn:
        began_at = self._clock.now() - max(0.0, self._clock.wall() - head.created_s)
        client = client_name({name.lower(): value for name, value in head.headers})
        origin = RequestOrigin(head.id, client, "", began_at)
        return PassedOn(origin, head.path, canonical(model_of(head.body)), peer.url)

    async def _copy(
        self,
        peer: Peer,
        state: PeerState,
        request: PassedOn,
        answer_id: str,
        first_frame: int,
        send: Send,
        *,
        has_started: bool,
    ) -> None:
        """Send the client an answer that the peer continues, from frame number `first_frame` to its end.
        `state` is the state of the peer. `has_started` says whether the client has the HTTP status already.
        `request` describes the request for the list of those in flight.

        If the peer is lost before the client has the status, send an error instead. If the peer is lost
        later, raise PeerLost: the connection then breaks off, and the client can ask for the rest.
        """
        is_dead = wait_until_dead(state, self._clock, DEAD_AFTER_S)
        self.read_here.append(request)
        try:
            await peer.copy_answer(answer_id, first_frame, send, has_started=has_started, is_dead=is_dead)
        except PeerLost as lost:
            self._emit("peer_lost", str(lost), id=answer_id, peer=peer.url)
            self._passed_on.pop(answer_id, None)
            if lost.has_started:
                raise
            await lost_response(request.path, answer_id)({"type": "http"}, _nothing, send)
        finally:
            self.read_here.remove(request)


def lost_response(path: str, request_id: str | None = None) -> Response:
    """Return the error response, with status 503, to a request whose peer is lost before it has answered.
    `path`, the request's path, decides which API dialect's form the error has. `request_id`, unless it is
    None, is sent in headers.
    """
    return error_response(Unavailable("engine_unavailable", LOST), path, request_id)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
