"""A token bucket. Pure: time is an argument."""

from dataclasses import dataclass


@dataclass
class TokenBucket:
    """At most `capacity` at once, and one more each `refill_s` seconds."""

    capacity: int
    refill_s: float
    tokens: float = -1.0
    at: float = 0.0

    def take(self, now: float) -> float:
        """0.0 where one is to be had (and is taken), else the seconds until there is one."""
        if self.tokens < 0:
            self.tokens, self.at = float(self.capacity), now
        self.tokens = min(float(self.capacity), self.tokens + (now - self.at) / self.refill_s)
        self.at = now
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) * self.refill_s
