"""All unfinished requests of the engine, by id; the queues are views of this table. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mlx_server.engine.scheduling.request import TRANSITIONS, Request, RequestStatus


class IllegalTransition(RuntimeError):
    """A request was to change its status in a way that `TRANSITIONS` does not list: a bug."""


class EngineRequests:
    """Owner of the requests and the only writer of their status.

    Requests of one status are kept in the order in which they reached that status, so each status is a
    queue: first come, first served, whatever the model.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Request] = {}
        self._by_status: dict[RequestStatus, dict[str, Request]] = {status: {} for status in RequestStatus}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._by_id

    def get(self, request_id: str) -> Request | None:
        return self._by_id.get(request_id)

    def add(self, request: Request) -> None:
        """Add a new request, which waits for its model. Raises ValueError if its id is in use."""
        if request.id in self._by_id:
            raise ValueError(f"Request id {request.id!r} is in use.")
        if request.status is not RequestStatus.WAITING_FOR_MODEL:
            raise IllegalTransition(f"A new request is {request.status.value}.")
        self._by_id[request.id] = request
        self._by_status[request.status][request.id] = request

    def move(self, request: Request, status: RequestStatus) -> None:
        """Change a request's status; it goes to the end of that status's queue. Raises IllegalTransition."""
        if self._by_id.get(request.id) is not request or status not in TRANSITIONS[request.status]:
            raise IllegalTransition(f"Request {request.id!r}: {request.status.value} -> {status.value}.")
        del self._by_status[request.status][request.id]
        request.status = status
        if status is RequestStatus.FINISHED:
            del self._by_id[request.id]
        else:
            self._by_status[status][request.id] = request

    def finish(self, request: Request) -> None:
        """Remove a request that was answered, failed or cancelled. Raises IllegalTransition."""
        self.move(request, RequestStatus.FINISHED)

    def move_to_back(self, request: Request) -> None:
        """Put a request behind all others of its status."""
        queue = self._by_status[request.status]
        queue[request.id] = queue.pop(request.id)

    # --- views ---

    def select(self, *statuses: RequestStatus, model: str | None = None) -> list[Request]:
        """Return the requests with these statuses, of one `model` if given: status by status, each in queue
        order.
        """
        return list(self._iterate(statuses, model))

    def any(self, *statuses: RequestStatus, model: str | None = None) -> bool:
        """Return whether any request has one of these statuses; only those of `model`, if given."""
        return self.first(*statuses, model=model) is not None

    def first(self, *statuses: RequestStatus, model: str | None = None) -> Request | None:
        """Return the first request that `select` would return, or None."""
        return next(self._iterate(statuses, model), None)

    def models(self, status: RequestStatus) -> list[str]:
        """Return the models of the requests of one status, in the order of each model's first request."""
        return list(dict.fromkeys(request.model for request in self._by_status[status].values()))

    def _iterate(self, statuses: tuple[RequestStatus, ...], model: str | None) -> Iterator[Request]:
        for status in statuses:
            for request in self._by_status[status].values():
                if model is None or request.model == model:
                    yield request
