"""`vestal top`: show the requests in flight and what the memory is used for, live on a terminal.

In a pipe and with --json, the output is printed once. The exit code is 69 if no MLX server answers.
"""

from __future__ import annotations

import argparse
import json
import queue
import time
from typing import Any

from host_agent.cli.gateway import GatewayClient
from host_agent.cli.screen import live_screen
from host_agent.cli.screen.event_feed import LOST, EventFeed, FeedEvent, NotAStream
from host_agent.cli.screen.poller import Poller
from host_agent.cli.screen.styled import Line, can_show_live, print_lines, wrapped
from host_agent.cli.screen.units import format_duration
from host_agent.cli.top import layout
from host_agent.errors import GatewayUnreachable
from vestal.config import Config

REQUESTS, HEALTH = "requests", "health"


def run(options: argparse.Namespace, config: Config) -> int:
    gateway = GatewayClient(config)
    if can_show_live() and not options.json:
        events: live_screen.Events = queue.SimpleQueue()
        Poller(lambda: _ask_for_health(gateway), events).start()
        EventFeed(f"{gateway.url}/requests/events", str, events).start()
        watched = WatchedGateway(gateway)
        live_screen.show(events, watched.on_event, watched.draw)
        return 0
    requests, health = gateway.get("/requests"), gateway.health()
    if options.json:
        answer = requests | {"memory": health.get("memory"), "engine": health.get("engine")}
        print(json.dumps(answer, indent=2))
    else:
        print_lines(layout.plain_lines(requests, health))
    return 0


def _ask_for_health(gateway: GatewayClient) -> FeedEvent:
    try:
        return FeedEvent(HEALTH, gateway.health())
    except GatewayUnreachable as error:
        return FeedEvent(LOST, error)


class WatchedGateway:
    """Keeps the last report of `gateway` on its requests and memory, and the time since which the gateway has
    not answered. Draws both.
    """

    def __init__(self, gateway: GatewayClient) -> None:
        self._gateway = gateway
        self._requests: dict[str, Any] = {}
        self._health: dict[str, Any] = {}
        self._listed_at = time.monotonic()
        self._away_since: float | None = None
        self._why_away = ""

    def on_event(self, event: FeedEvent) -> None:
        """Update the state from a list of requests, a response to GET /health, or the loss of the
        connection.
        """
        if event.name == LOST:
            self._away_since = self._away_since or time.monotonic()
            self._why_away = self._reason(event.data)
        elif event.name == REQUESTS:
            self._requests, self._listed_at, self._away_since = event.data, time.monotonic(), None
        elif event.name == HEALTH:
            self._health = event.data

    def _reason(self, data: object) -> str:
        if isinstance(data, NotAStream) and data.is_unknown:
            return "The MLX server is older than this command: `vestal up` replaces it."
        if isinstance(data, NotAStream):
            return str(self._gateway.refused(data.status))
        return str(data if isinstance(data, GatewayUnreachable) else self._gateway.unreachable(data))

    def draw(self, width: int) -> list[Line]:
        """Return the lines of the screen for a width in columns."""
        age_s = time.monotonic() - self._listed_at
        if self._away_since is None:
            return layout.lay_out(self._requests, self._health, width, age_s)
        away = f"No list of requests for {format_duration(time.monotonic() - self._away_since)}."
        lines = [*wrapped([(away, "bold red")], width), *wrapped([(self._why_away, "yellow")], width)]
        last = layout.lay_out(self._requests, self._health, width)
        return [*lines, [], *([(text, "dim") for text, _ in line] for line in last)]
