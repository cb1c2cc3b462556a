"""Decide when a probe of a model is due, and measure the time since the last answer. Pure.

Ollama serves requests in order, so a probe waits behind users' requests. The module `silence` judges a probe
without an answer.
"""

from dataclasses import dataclass, replace

from host_agent.services.ollama.answers import ModelProbeResult

TOKEN_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ProbeBudget:
    """The history of the model probes, which decides when the next one is due. Times are monotonic seconds.

    A probe is open until it is answered or given up. It fails if the answer is bad, the connection breaks
    off, or it is given up. The next probe is due at once if the last one failed or there was none, else
    `interval_s` after the last good answer. `asked_at` is when the open probe was sent, None if no probe is
    open. `ok_at` is when the last good answer came. `silent_since` is when the first unanswered probe was
    sent, None if all were answered. `silent_since` does not change when that probe is given up and another
    one sent, because otherwise the silence of a model that never answers would be measured from its newest
    probe. `failed` is True if the probe that ended last failed.
    """

    interval_s: float = 30.0
    asked_at: float | None = None
    ok_at: float | None = None
    silent_since: float | None = None
    failed: bool = False

    def is_due(self, now: float) -> bool:
        """Return whether to send a probe, because none is open and the last answer was bad or is older than
        `interval_s`.
        """
        if self.asked_at is not None:
            return False
        return self.failed or self.ok_at is None or now - self.ok_at >= self.interval_s

    def asked(self, now: float) -> "ProbeBudget":
        """Return a copy of this budget after a probe was sent at `now`; the probe is open until it is
        answered or given up.
        """
        return replace(
            self, asked_at=now, silent_since=now if self.silent_since is None else self.silent_since
        )

    def waited_s(self, now: float) -> float:
        """Return for how many seconds the open probe has had no answer; 0 if no probe is open."""
        return now - self.asked_at if self.asked_at is not None else 0.0

    def silent_s(self, now: float) -> float:
        """Return how many seconds before `now` the first probe since the last answer was sent; 0 if no probe
        has been sent since that answer.
        """
        return now - self.silent_since if self.silent_since is not None else 0.0

    def answered(self, verdict: ModelProbeResult, now: float) -> "ProbeBudget":
        """Return a copy of this budget after the open probe, the one that was sent last, was answered at
        `now` with the result `verdict`.
        """
        ok_at = now if verdict.ok else self.ok_at
        return replace(self, asked_at=None, ok_at=ok_at, silent_since=None, failed=not verdict.ok)

    def given_up(self) -> "ProbeBudget":
        """Return a copy of this budget after the open probe was given up, because the model was judged to
        hang. The probe counts as failed.
        """
        return replace(self, asked_at=None, failed=True)
