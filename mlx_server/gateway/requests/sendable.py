"""Encode model requests for the engine, so that they are known to be sendable before they are accepted. Pure.

A request that no frame can carry must never hold a slot or a position in the queue. The request table and the
dispatcher therefore accept only `SendableRequest`s, and encoding is the only way to make one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mlx_server import protocol
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import (
    SEED_MASK,
    GenerationRequest,
    LoadRequest,
    ModelRequest,
)
from mlx_server.gateway.requests.table.admission import Lane

ADDED_LATER = ("id", "sampling", "emitted", "check_only", "traceparent", "resumed", "created_s")
"""The fields of a generation that are added each time it is sent, because they differ between sendings."""
_NAMES_FOR_CLIENTS = {
    "template": "the variables for the chat template",
    "json_schema": "the JSON schema of the answer",
}
"""How to name fields of the protocol to clients, because every dialect has other names for them."""


@dataclass(frozen=True, slots=True)
class SendableRequest:
    """An encoded model request, without the objects that it was made from. Several answers to one prompt
    share the encoded form. `lane` is the class of requests, such as generations or embeddings, with which the
    request shares slots and a queue.
    """

    model: str
    lane: Lane
    _prepared: protocol.PreparedOp
    _sampling: protocol.Sampling | None = None

    @property
    def loads_or_unloads(self) -> bool:
        """Return whether the request loads or unloads its model. The lane alone does not show this, because
        requests that count the tokens of a prompt are in the same lane.
        """
        return self.lane is Lane.CONTROL and self._sampling is None

    def frame(
        self,
        request_id: str,
        emitted: Sequence[int],
        traceparent: str | None = None,
        *,
        resumed: bool = False,
        created_s: float | None = None,
    ) -> bytes:
        """Return the frame for an engine. `emitted` are the ids of the tokens that the client already has.
        `traceparent` names the trace span to which the engine's work belongs; None if there is none.
        `resumed` says that an engine has run the request before and was lost, and `created_s` is when the
        request was first accepted, in seconds since 1970.
        """
        added: dict[str, Any] = {"id": request_id}
        if self._sampling is not None:
            added |= {"sampling": self._sampling, "emitted": emitted, "created_s": created_s}
        if self._sampling is not None or self.lane in (Lane.EMBED, Lane.RERANK):
            added |= {"resumed": resumed} | ({"traceparent": traceparent} if traceparent else {})
        return self._prepared.frame(**added)

    def check_frame(self, request_id: str) -> bytes:
        """Return the frame that asks an engine to check the request, which must be a generation."""
        return self._prepared.frame(id=request_id, sampling=self._sampling, check_only=True)

    def with_seed_offset(self, offset: int) -> SendableRequest:
        """Return the same request with `offset` added to its seed, so that it gets another answer."""
        assert self._sampling is not None
        seed = (self._sampling.seed + offset) & SEED_MASK
        return replace(self, _sampling=msgspec.structs.replace(self._sampling, seed=seed))


def repeated(requests: Sequence[SendableRequest], times: int) -> list[SendableRequest]:
    """Return each request `times` times in a row, with different seeds for all."""
    each_repeated = [request for request in requests for _ in range(times)]
    return [request.with_seed_offset(offset) for offset, request in enumerate(each_repeated)]


def sendable(request: ModelRequest) -> SendableRequest:
    """Return `request` encoded. Raises BadRequest, which says why, if no frame can carry the request."""
    try:
        if isinstance(request, GenerationRequest):
            prepared = protocol.prepare(request.operation(), *ADDED_LATER)
            return SendableRequest(request.model, request.lane, prepared, request.sampling)
        later = (
            ("id", "traceparent") if isinstance(request, LoadRequest) else ("id", "traceparent", "resumed")
        )
        prepared = protocol.prepare(request.operation(), *later)
        return SendableRequest(request.model, request.lane, prepared)
    except protocol.ProtocolError as error:
        raise BadRequest("invalid_request", f"{_in_clients_terms(str(error))}.") from error


def _in_clients_terms(fault: str) -> str:
    """Replace a protocol field at the start of `fault` by its name for clients: `json_schema.maximum: …`
    becomes `the JSON schema of the answer, maximum: …`.
    """
    for field, name in _NAMES_FOR_CLIENTS.items():
        if fault.startswith(f"{field}:"):
            return name + fault[len(field) :]
        if fault.startswith(f"{field}."):
            return f"{name}, {fault[len(field) + 1 :]}"
    return fault
