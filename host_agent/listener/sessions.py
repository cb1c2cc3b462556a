"""How a browser gets in: a one-time link, asked for with the token, is exchanged for a cookie."""

import hmac
import secrets
from dataclasses import dataclass, field

LINK_FOR_S = 120.0
SESSION_FOR_S = 12 * 3600.0
MOST = 100  # links and sessions kept at once; the oldest go


@dataclass
class Sessions:
    """Links not used yet and sessions open now, in memory: they end with the agent. Times are monotonic."""

    _links: dict[str, float] = field(default_factory=dict)
    _sessions: dict[str, float] = field(default_factory=dict)

    def make_link(self, now: float) -> str:
        """A key that opens one session within LINK_FOR_S."""
        return _add(self._links, now + LINK_FOR_S)

    def redeem(self, key: str, now: float) -> str | None:
        """A session for a key that was not used before; None otherwise."""
        found = _find(self._links, key, now)
        if found is None:
            return None
        del self._links[found]
        return _add(self._sessions, now + SESSION_FOR_S)

    def holds(self, session: str, now: float) -> bool:
        return _find(self._sessions, session, now) is not None


def _add(kept: dict[str, float], until: float) -> str:
    while len(kept) >= MOST:
        del kept[next(iter(kept))]
    key = secrets.token_urlsafe(24)
    kept[key] = until
    return key


def _find(kept: dict[str, float], given: str, now: float) -> str | None:
    match = None
    for key in list(kept):
        if kept[key] <= now:
            del kept[key]
        elif hmac.compare_digest(key.encode(), given.encode()):
            match = key
    return match
