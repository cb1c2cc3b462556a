"""Browser sessions. A client that has the agent's API token can create a link that is valid once, and the
browser that opens the link gets a session cookie.
"""

import hmac
import secrets

LINK_FOR_S = 120.0
SESSION_FOR_S = 12 * 3600.0
MAX_LINKS = 100  # the oldest are dropped
PURPOSE = b"a session of Vestal's page"


class Sessions:
    """Creates and checks login links, which are kept in memory until used, and sessions, which are not
    stored.

    A session is its expiry time, signed with the token. A restarted agent accepts the same sessions, so that
    an open page keeps working. A new token ends all sessions.

    Times are in seconds since 1970.
    """

    def __init__(self, token: str) -> None:
        self._key = hmac.digest(token.encode(), PURPOSE, "sha256")
        self._links: dict[str, float] = {}

    def make_link(self, now: float) -> str:
        """Return the key of a new link, which opens one session and expires after LINK_FOR_S."""
        while len(self._links) >= MAX_LINKS:
            del self._links[next(iter(self._links))]
        key = secrets.token_urlsafe(24)
        self._links[key] = now + LINK_FOR_S
        return key

    def redeem(self, key: str, now: float) -> str | None:
        """Return a new session if `key` is the key of an unused, unexpired link; else None."""
        found = self._find_link(key, now)
        if found is None:
            return None
        del self._links[found]
        return self._signed(f"{int(now + SESSION_FOR_S)}-{secrets.token_urlsafe(8)}")

    def is_open(self, session: str, now: float) -> bool:
        """Return whether `session` was signed with the agent's current API token and has not expired at
        `now`.
        """
        content = session.partition(".")[0]
        signed = self._signed(content).encode(errors="replace")
        if not hmac.compare_digest(signed, session.encode(errors="replace")):
            return False
        return now < int(content.partition("-")[0])

    def _signed(self, content: str) -> str:
        signature = hmac.new(self._key, content.encode(errors="replace"), "sha256").hexdigest()
        return f"{content}.{signature}"

    def _find_link(self, key: str, now: float) -> str | None:
        """Delete the expired login links. Return the stored key that equals `key`, or None if there is none.

        The keys are compared in constant time, because the duration of a lookup in the dictionary could
        reveal a part of a stored key.
        """
        match = None
        for link in list(self._links):
            if self._links[link] <= now:
                del self._links[link]
            elif hmac.compare_digest(link.encode(), key.encode(errors="replace")):
                match = link
        return match
