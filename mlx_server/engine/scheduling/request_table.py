"""All unfinished requests of the engine, by id. The queues are views of this table. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mlx_server.engine.scheduling.request import TRANSITIONS, Request, RequestStatus


class IllegalTransition(RuntimeError):
    """A request's status was to be changed in a way that `TRANSITIONS` does not list. This is a bug."""


class EngineRequests:
    """Owns all unfinished requests. Only this class changes their status.

    Requests of the same status are ordered by when they reached that status. So each status is a queue: first
    come, first served, whatever the model.
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
        """Add a new request, which must have the status WAITING_FOR_MODEL. Raises ValueError if its id is in
        use, and IllegalTransition if it has another status.
        """
        if request.id in self._by_id:
            raise ValueError(f"Request id {request.id!r} is in use.")
        if request.status is not RequestStatus.WAITING_FOR_MODEL:
            raise IllegalTransition(f"A new request is {request.status.value}.")
        self._by_id[request.id] = request
        self._by_status[request.status][request.id] = request

    def move(self, request: Request, status: RequestStatus) -> None:
        """Change a request's status, and put the request at the end of that status's queue. Raises
        IllegalTransition if the request is unknown, or may not get that status.
        """
        if self._by_id.get(request.id) is not request or status not in TRANSITIONS[request.status]:
            raise IllegalTransition(f"Request {request.id!r}: {request.status.value} -> {status.value}.")
        del self._by_status[request.status][request.id]
        request.status = status
        if status is RequestStatus.FINISHED:
            del self._by_id[request.id]
        else:
            self._by_status[status][request.id] = request

    def finish(self, request: Request) -> None:
        """Remove a request that was answered, failed or cancelled. Raises IllegalTransition if the request is
        unknown.
        """
        self.move(request, RequestStatus.FINISHED)

    def move_to_back(self, request: Request) -> None:
        """Put a request behind all others of the same status."""
        queue = self._by_status[request.status]
        queue[request.id] = queue.pop(request.id)

    # --- views ---

    def select(self, *statuses: RequestStatus, model: str | None = None) -> list[Request]:
        """Return the requests with these statuses, of any model or only of `model`. They are ordered by
        status, as in `statuses`, then by their place in the queue.
        """
        return list(self._iterate(statuses, model))

    def any(self, *statuses: RequestStatus, model: str | None = None) -> bool:
        """Return whether any request, of any model or only of `model`, has one of these statuses."""
        return self.first(*statuses, model=model) is not None

    def first(self, *statuses: RequestStatus, model: str | None = None) -> Request | None:
        """Return the first request that `select` would return; None if there is none."""
        return next(self._iterate(statuses, model), None)

    def models(self, status: RequestStatus) -> list[str]:
        """Return the models of the requests with this status, in the order of each model's first request."""
        return list(dict.fromkeys(request.model for request in self._by_status[status].values()))

    def _iterate(self, statuses: tuple[RequestStatus, ...], model: str | None) -> Iterator[Request]:
        for status in statuses:
            for request in self._by_status[status].values():
                if model is None or request.model == model:
                    yield request
