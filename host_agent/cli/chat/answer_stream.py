"""Stream one answer of the gateway. If the gateway dies, request the rest from the gateway that
replaces it.
"""

from __future__ import annotations

import http.client
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from queue import SimpleQueue
from typing import Any

from host_agent.blocking_http import json_object, open_response
from host_agent.cli.chat.answer import (
    Failed,
    Finished,
    GatewayBack,
    GatewayLost,
    Happening,
    engine_happening,
    error_sentence,
    read_frame,
)
from host_agent.cli.gateway import GatewayClient
from host_agent.errors import HostAgentError

READ_TIMEOUT_S = 30.0
"""The gateway sends something on a stream at least every 4 s, even while the answer waits."""
RECONNECT_TIMEOUT_S = 120.0
RECONNECT_DELAY_S = 0.25
EVENTS_WAIT_S = 20.0
GONE = (404, 410)


class AnswerStream:
    """Sends one request to /api/chat, and reads its answer on another thread.

    The queue `happenings` receives the answer's events, and the deaths and starts of the engine. The request
    has an idempotency key, so that the gateway generates only one answer even if the request is sent again.
    """

    def __init__(self, gateway: GatewayClient, body: dict[str, Any]) -> None:
        self._gateway, self._body = gateway, body
        self._key = str(uuid.uuid4())
        self._frames = 0
        self._is_over = False
        self.request_id = ""
        self.happenings: SimpleQueue[Happening] = SimpleQueue()

    def start(self) -> None:
        """Send the request and read its answer on other threads, so that Ctrl-C takes effect at once."""
        threading.Thread(target=self._watch_engine, name="engine", daemon=True).start()
        threading.Thread(target=self._run, name="answer", daemon=True).start()

    def cancel(self) -> None:
        """Stop reading the answer, and cancel it in the gateway, which would continue it although the
        connection is closed.
        """
        self._is_over = True
        if self.request_id:
            with suppress(HostAgentError):
                self._gateway.delete(f"/requests/{self.request_id}")

    def _run(self) -> None:
        lost_at: float | None = None
        while not self._is_over:
            try:
                with self._open() as response:
                    if response.status != http.client.OK:
                        if self._refused(response):
                            return
                        raise http.client.HTTPException(f"it answers {response.status}")
                    self.request_id = response.headers.get("x-request-id", "")
                    if lost_at is not None:
                        lost_at = None
                        self._put(GatewayBack())
                    for happening in self._read(response):
                        self._put(happening)
                if self._is_over:
                    return
                reason = "the connection was closed"
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = str(error) or type(error).__name__
            if lost_at is None:
                lost_at = time.monotonic()
                self._put(GatewayLost(reason))
            if time.monotonic() - lost_at > RECONNECT_TIMEOUT_S:
                self._end(Failed(str(self._gateway.unreachable(reason))))
            time.sleep(RECONNECT_DELAY_S)

    def _open(self) -> AbstractContextManager[http.client.HTTPResponse]:
        """Send the request or, if the gateway has accepted it before, request the frames that have not
        arrived yet. Return a context manager that yields the open response.
        """
        if self.request_id:
            url = f"{self._gateway.url}/v1/streams/{self.request_id}?from={self._frames}"
            return open_response("GET", url, timeout_s=READ_TIMEOUT_S)
        url, key = f"{self._gateway.url}/api/chat", {"Idempotency-Key": self._key}
        return open_response("POST", url, body=self._body, timeout_s=READ_TIMEOUT_S, extra_headers=key)

    def _read(self, response: http.client.HTTPResponse) -> Iterator[Happening]:
        """Yield the events of each line of the response. An incomplete line is ignored, because it is
        requested again.
        """
        for line in response:
            if self._is_over or not line.endswith(b"\n"):
                return
            self._frames += 1
            frame = read_frame(line)
            self._is_over = frame.is_last
            yield from frame.happenings

    def _refused(self, response: http.client.HTTPResponse) -> bool:
        """Return whether an error response ends the answer; if so, put the failure into the queue.

        Before the gateway has accepted the request, every error response ends the answer. After that, only an
        error response that says that the gateway no longer has the answer ends it.
        """
        if self.request_id and response.status in GONE:
            self._end(Failed("The rest of the answer is lost: the MLX server has come back without it."))
        elif not self.request_id:
            self._end(Failed(error_sentence(json_object(response.read()))))
        return self._is_over

    def _watch_engine(self) -> None:
        """Follow the gateway's events until the answer ends, and report each death and start of the
        engine.
        """
        since, instance = self._events("", 0, 0.0) or (0, "")
        while not self._is_over:
            found = self._events(instance, since, EVENTS_WAIT_S, report=True)
            if found is None:
                time.sleep(RECONNECT_DELAY_S)
            else:
                since, instance = found

    def _events(
        self, instance: str, since: int, wait_s: float, *, report: bool = False
    ) -> tuple[int, str] | None:
        """Request the gateway's events whose number is above `since`. If there are none, the gateway waits up
        to `wait_s` seconds for one.

        `since` is a number given by the gateway process whose id is `instance`. Any other gateway process
        returns all its events. The first call passes an empty `instance` and 0.

        With `report`, put each death and start of the engine into the queue `happenings`. Return the newest
        event's number and the id of the gateway process that answered, or None if the request failed.
        """
        path = f"/events?since={since}&instance={instance}&wait_s={wait_s:.0f}"
        try:
            with open_response("GET", self._gateway.url + path, timeout_s=READ_TIMEOUT_S) as response:
                answer = json_object(response.read())
            events = answer["events"]
            for event in events if report else ():
                if (happening := engine_happening(event)) is not None and not self._is_over:
                    self._put(happening)
            newest = max((int(event["seq"]) for event in events), default=0)
            return max(newest, since if answer["instance"] == instance else 0), str(answer["instance"])
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return None

    def _put(self, happening: Happening) -> None:
        self.happenings.put(happening)

    def _end(self, last: Failed | Finished) -> None:
        self._is_over = True
        self._put(last)
