"""A request that continues after an earlier ticket for it has ended, perhaps in another gateway. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_server import protocol


@dataclass(frozen=True)
class ResumedRequest:
    """The id of a request, and the events that its client has received already.

    `public_id` is the id by which the client knows the request. `was_accepted` is False for a new request
    that only brings an id of its own.
    """

    id: str
    public_id: str
    events: Sequence[protocol.Token | protocol.Done] = ()
    was_accepted: bool = False

    @property
    def emitted(self) -> list[int]:
        """Return the ids of the tokens that the client already has."""
        return [event.token for event in self.events if isinstance(event, protocol.Token)]
