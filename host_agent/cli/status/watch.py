"""`vestal status --watch`: show the tree of services live, even while the agent is down or restarts."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable
from typing import Any

from host_agent.agent_client import AgentClient
from host_agent.cli.screen import live_screen
from host_agent.cli.screen.event_feed import LOST, EventFeed, FeedEvent, NotAStream
from host_agent.cli.screen.poller import Poller
from host_agent.cli.screen.styled import Line, wrapped
from host_agent.cli.screen.units import format_duration
from host_agent.cli.status import tree
from host_agent.errors import HostAgentError
from host_agent.sentences import as_sentence
from vestal.config import Config, ConfigError, read_token

HEALTHY = 0
STATUS, AWAY = "status", "away"


def run(config: Config) -> int:
    """Show the tree of services with their states, and the open incidents, and update both as they change.
    Return 0 when the user types `q`, Esc or Ctrl-C.
    """
    events: live_screen.Events = queue.SimpleQueue()
    poller = Poller(lambda: _ask(config), events)
    poller.start()
    _follow(config, "/live", events)
    watched = WatchedStatus(poller, lambda: _follow(config, "/events", events))
    live_screen.show(events, watched.on_event, watched.draw)
    return HEALTHY


def _ask(config: Config) -> FeedEvent:
    """Request the status from the agent of this home. Return an event with the status, or with the reason
    why this agent does not answer.
    """
    client = AgentClient(config)
    with contextlib.suppress(HostAgentError, ConfigError):
        if client.own_agent_answers():
            return FeedEvent(STATUS, client.get("/status"))
    return FeedEvent(AWAY, str(client.why_silent()))


def _follow(config: Config, path: str, events: live_screen.Events) -> None:
    url = f"http://127.0.0.1:{config.agent.port}{path}"
    EventFeed(url, lambda: read_token(config.home), events).start()


class WatchedStatus:
    """Keeps the agent's last status, the open incidents, and the time since which the agent has not answered,
    and draws them.

    `poller` requests GET /status. `follow_journal` starts a stream of the journal's events, for an older
    agent that has no stream of its status.
    """

    def __init__(self, poller: Poller, follow_journal: Callable[[], None]) -> None:
        self._poller, self._follow_journal = poller, follow_journal
        self._status: dict[str, Any] | None = None
        self._taken_at = 0.0
        self._away_since: float | None = None
        self._why_away = ""
        self._incidents: dict[int, dict[str, Any]] = {}
        self._has_no_live = False

    def on_event(self, event: FeedEvent) -> None:
        """Update the agent's status and the open incidents from `event`, which comes from one of the agent's
        event streams or from the constructor's `poller`.

        The poller requests GET /status while the agent does not answer, and once when a stream is lost. An
        older agent has no stream of its status, so the poller requests that agent's status at regular
        intervals, and after each event of its journal.
        """
        if event.name == STATUS:
            self._status, self._taken_at, self._away_since = event.data, time.monotonic(), None
            self._poller.is_needed = self._has_no_live
        elif event.name == AWAY:
            self._why_away = event.data
            self._away_since = self._away_since or time.monotonic()
            self._poller.is_needed = True
        elif event.name == "incident":
            self._take_incident(event.data)
        elif event.name == "journal":
            self._poller.ask_soon()
        elif event.name == LOST:
            self._on_lost(event.data)

    def draw(self, width: int) -> list[Line]:
        """Return the lines of the screen for a width in columns."""
        if self._away_since is not None:
            return self._lines_while_away(width, time.monotonic() - self._away_since)
        if self._status is None:
            return [[("Waiting for the agent …", "dim")]]
        shown = tree.lay_out(self._status, width, time.time(), time.monotonic() - self._taken_at)
        return [*shown, *self._incident_lines(width)]

    def _lines_while_away(self, width: int, away_s: float) -> list[Line]:
        """Return lines that say how long the agent has not answered and why, and then its last status."""
        lines = wrapped([(f"The agent has not answered for {format_duration(away_s)}.", "bold red")], width)
        lines += wrapped([(self._why_away, "yellow")], width)
        if self._status is None:
            return lines
        last = tree.lay_out(self._status, width, time.time())
        return [
            *lines,
            [],
            [("Before that:", "dim")],
            *([(text, "dim") for text, _ in line] for line in last),
        ]

    def _take_incident(self, incident: dict[str, Any]) -> None:
        if incident.get("open"):
            self._incidents[incident["id"]] = incident
        else:
            self._incidents.pop(incident["id"], None)

    def _on_lost(self, reason: object) -> None:
        self._incidents.clear()  # after reconnecting, the agent sends all open incidents
        if isinstance(reason, NotAStream) and reason.is_unknown and not self._has_no_live:
            self._has_no_live = True  # an older agent has only the stream of the journal
            self._follow_journal()
        self._poller.ask_soon()

    def _incident_lines(self, width: int) -> list[Line]:
        texts = [as_sentence(str(incident["sentence"])) for incident in self._incidents.values()]
        lines = [line for text in texts for line in wrapped([(text, "yellow")], width)]
        return [[], *lines] if lines else []
