"""`vestal status --watch`: the tree of services, live, while agents come and go."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from host_agent.agent import agent_state
from host_agent.agent_client import AgentClient
from host_agent.cli.screen import live_screen
from host_agent.cli.screen.event_feed import LOST, EventFeed, FeedEvent, NotAStream
from host_agent.cli.screen.styled import Line
from host_agent.cli.screen.units import format_duration
from host_agent.cli.status import tree
from host_agent.errors import HostAgentError
from host_agent.sentences import as_sentence
from vestal.config import Config, ConfigError, read_token

HEALTHY = 0
STATUS, AWAY = "status", "away"
ASK_PAUSE_S, ASK_EACH_S = 0.3, 2.0


def run(config: Config) -> int:
    """Show the tree until Ctrl-C, which is not an error."""
    events: live_screen.Events = queue.SimpleQueue()
    asker = StatusAsker(config, events)
    asker.start()
    _follow(config, "/live", events)
    watched = WatchedStatus(asker, lambda: _follow(config, "/events", events))
    live_screen.show(events, watched.on_event, watched.draw)
    return HEALTHY


def _follow(config: Config, path: str, events: live_screen.Events) -> None:
    url = f"http://127.0.0.1:{config.agent.port}{path}"
    EventFeed(url, lambda: read_token(config.home), events).start()


class StatusAsker:
    """Asks for GET /status on a thread, because an agent that hangs must not stop the screen.

    Puts the answer into `events`, or `away` with the reason why there is none. Asks when it is called, and
    each 2 s while `is_needed`.
    """

    def __init__(self, config: Config, events: live_screen.Events) -> None:
        self._config, self._events = config, events
        self._client = AgentClient(config)
        self._wanted = threading.Event()
        self.is_needed = True

    def start(self) -> None:
        threading.Thread(target=self._run, name="status", daemon=True).start()

    def ask(self) -> None:
        """Ask soon."""
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.clear()
            try:
                self._events.put(FeedEvent(STATUS, self._client.get("/status")))
            except (HostAgentError, ConfigError):
                self._events.put(FeedEvent(AWAY, str(agent_state.of_silent_agent(self._config))))
            time.sleep(ASK_PAUSE_S)
            self._wanted.wait(ASK_EACH_S - ASK_PAUSE_S if self.is_needed else None)


class WatchedStatus:
    """The last status that the agent gave, its open incidents, and since when it gives nothing."""

    def __init__(self, asker: StatusAsker, follow_journal: Any) -> None:
        self._asker, self._follow_journal = asker, follow_journal
        self._status: dict[str, Any] | None = None
        self._taken_at = 0.0
        self._away_since: float | None = None
        self._why_away = ""
        self._incidents: dict[int, dict[str, Any]] = {}
        self._has_no_live = False

    def on_event(self, event: FeedEvent) -> None:
        """Take an event of the agent's stream, or an answer of the asker."""
        if event.name == STATUS:
            self._status, self._taken_at, self._away_since = event.data, time.monotonic(), None
            self._asker.is_needed = self._has_no_live
        elif event.name == AWAY:
            self._why_away = event.data
            self._away_since = self._away_since or time.monotonic()
            self._asker.is_needed = True
        elif event.name == "incident":
            self._take_incident(event.data)
        elif event.name == "journal":
            self._asker.ask()
        elif event.name == LOST:
            self._on_lost(event.data)

    def draw(self, width: int) -> list[Line]:
        """Return the lines of the screen."""
        if self._away_since is not None:
            return self._absence(width, time.monotonic() - self._away_since)
        if self._status is None:
            return [[("Waiting for the agent …", "dim")]]
        shown = tree.lay_out(self._status, width, time.time(), time.monotonic() - self._taken_at)
        return [*shown, *self._incident_lines(width)]

    def _absence(self, width: int, away_s: float) -> list[Line]:
        """Return that the agent is away, and below it what it last reported."""
        lines = tree.wrapped(
            [(f"The agent has not answered for {format_duration(away_s)}.", "bold red")], width
        )
        lines += tree.wrapped([(self._why_away, "yellow")], width)
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
        self._incidents.clear()  # the agent sends the open ones again
        if isinstance(reason, NotAStream) and not self._has_no_live:
            self._has_no_live = True  # an older agent, which has the journal's stream only
            self._follow_journal()
        self._asker.ask()

    def _incident_lines(self, width: int) -> list[Line]:
        texts = [as_sentence(str(incident["sentence"])) for incident in self._incidents.values()]
        lines = [line for text in texts for line in tree.wrapped([(text, "yellow")], width)]
        return [[], *lines] if lines else []
