"""Decide when a probe of a model is due, and how long no answer still means that the model works. Pure.

Ollama serves requests in order, so a probe waits behind users. The server is then busy, not hung, as long as
its runner uses the CPU. That is believed for BUSY_FOR_S only: a runner may use 100 % and never give a token
(ollama/ollama issue 10516).
"""

from dataclasses import dataclass, replace

from host_agent.services.ollama.answers import Verdict

TOKEN_TIMEOUT_S = 10.0
BUSY_FOR_S = 900.0
BUSY_CORES = 0.02  # a runner on a GPU needs little of the CPU, an idle runner none


@dataclass(frozen=True)
class ProbeBudget:
    """The history of the probes. Times are monotonic seconds.

    `asked_at` is when the probe was sent that has no answer yet, `ok_at` when the last good answer came.
    """

    interval_s: float = 30.0
    asked_at: float | None = None
    ok_at: float | None = None
    failed: bool = False

    def is_due(self, now: float) -> bool:
        """Return whether to send a probe: none is open, and the last answer was bad or is old."""
        if self.asked_at is not None:
            return False
        return self.failed or self.ok_at is None or now - self.ok_at >= self.interval_s

    def asked(self, now: float) -> "ProbeBudget":
        """Return the budget after a probe was sent."""
        return replace(self, asked_at=now)

    def waited_s(self, now: float) -> float:
        """Return how long the current probe has been without an answer, 0 where there is none."""
        return now - self.asked_at if self.asked_at is not None else 0.0

    def answered(self, verdict: Verdict, now: float) -> "ProbeBudget":
        """Return the budget after a probe was answered."""
        ok_at = now if verdict.ok else self.ok_at
        return replace(self, asked_at=None, ok_at=ok_at, failed=not verdict.ok)

    def judge_silence(self, now: float, runner_cores: float, timeout_s: float = TOKEN_TIMEOUT_S) -> Verdict:
        """Return the verdict on a probe without an answer.

        `runner_cores` is how many cores the runners use.
        """
        waited_s = self.waited_s(now)
        if waited_s < timeout_s:
            return Verdict(True, busy=True)
        is_busy = runner_cores >= BUSY_CORES
        if is_busy and waited_s < BUSY_FOR_S:
            return Verdict(True, f"busy: a token asked for waits since {waited_s:.0f} s", busy=True)
        though_busy = ", though a runner burns CPU" if is_busy else ""
        return Verdict(False, f"no token within {waited_s:.0f} s{though_busy}")
