"""The state with which a new ticket continues a request after its earlier ticket has ended, perhaps because
the gateway that held this ticket has exited. A ticket is one request to the engine, from which the handler
of the client's HTTP request reads the engine's events. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_server import protocol


@dataclass(frozen=True)
class ResumedRequest:
    """The ids of a new or resumed request to the engine, and the events that its client has received already.

    `public_id` is the id by which the client knows the request. `id` is the one that the gateway and the
    engine use. A resumed request gets a new `id`, because the engine may still be cancelling the earlier one.
    `was_accepted` is True if a gateway has accepted the request before, False if it is new. `created_s` is
    when it was first accepted, in seconds since 1970.
    """

    id: str
    public_id: str
    events: Sequence[protocol.Token | protocol.Done] = ()
    was_accepted: bool = False
    created_s: float | None = None

    @property
    def emitted(self) -> list[int]:
        """Return the ids of the tokens that the client already has."""
        return [event.token for event in self.events if isinstance(event, protocol.Token)]
