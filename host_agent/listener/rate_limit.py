"""A token bucket. Pure: time is an argument."""

from dataclasses import dataclass


@dataclass
class TokenBucket:
    """Allows `capacity` actions at once, and one more each `refill_s` seconds."""

    capacity: int
    refill_s: float
    tokens: float = -1.0  # negative: full, and not used yet
    refilled_at: float = 0.0

    def take(self, now: float) -> float:
        """Take a token and return 0.0; if there is none, return the seconds until there will be one. `now` is
        the time in seconds.
        """
        if self.tokens < 0:
            self.tokens, self.refilled_at = float(self.capacity), now
        self.tokens = min(float(self.capacity), self.tokens + (now - self.refilled_at) / self.refill_s)
        self.refilled_at = now
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) * self.refill_s
