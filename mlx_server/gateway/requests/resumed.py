"""A request that continues after the end of an earlier ticket for it, perhaps of another gateway. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_server import protocol


@dataclass(frozen=True)
class ResumedRequest:
    """The id of a request, and the events that its client has been given before.

    `public_id` is the id that its client knows it by. `was_accepted` is False for a new request that only
    brings its own id.
    """

    id: str
    public_id: str
    events: Sequence[protocol.Token | protocol.Done] = ()
    was_accepted: bool = False

    @property
    def emitted(self) -> list[int]:
        """Return the ids of the tokens that the client has."""
        return [event.token for event in self.events if isinstance(event, protocol.Token)]
