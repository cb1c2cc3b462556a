"""Browser sessions: a one-time link, made with the token, is exchanged for a cookie."""

import hmac
import secrets
from dataclasses import dataclass, field

LINK_FOR_S = 120.0
SESSION_FOR_S = 12 * 3600.0
MAX_KEYS = 100  # links, and as many sessions; the oldest are dropped


@dataclass
class Sessions:
    """Unused links and open sessions, in memory: they end with the agent. Times are monotonic seconds."""

    _links: dict[str, float] = field(default_factory=dict)
    _sessions: dict[str, float] = field(default_factory=dict)

    def make_link(self, now: float) -> str:
        """Return a key that opens one session within LINK_FOR_S."""
        return _add(self._links, now + LINK_FOR_S)

    def redeem(self, key: str, now: float) -> str | None:
        """Return a new session for a key that was not used before; None for any other."""
        found = _find(self._links, key, now)
        if found is None:
            return None
        del self._links[found]
        return _add(self._sessions, now + SESSION_FOR_S)

    def is_open(self, session: str, now: float) -> bool:
        return _find(self._sessions, session, now) is not None


def _add(keys: dict[str, float], expires_at: float) -> str:
    while len(keys) >= MAX_KEYS:
        del keys[next(iter(keys))]
    key = secrets.token_urlsafe(24)
    keys[key] = expires_at
    return key


def _find(keys: dict[str, float], given: str, now: float) -> str | None:
    """Drop the expired keys. Return the key that equals `given`, or None."""
    match = None
    for key in list(keys):
        if keys[key] <= now:
            del keys[key]
        elif hmac.compare_digest(key.encode(), given.encode(errors="replace")):
            match = key
    return match
