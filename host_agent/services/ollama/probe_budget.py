"""When a question to a model is due, and how long no answer still means that it works. Pure.

Ollama serves in order, so a token asked for behind users waits for them: that is busy and not hung, as long
as its runner burns CPU; and that is believed for a while only (ollama/ollama 10516: 100 %, and no token).
"""

from dataclasses import dataclass, replace

from host_agent.services.ollama.answers import Verdict

TOKEN_WITHIN_S = 10.0
BUSY_FOR_S = 900.0
BURNS = 0.02  # of one core: a runner on a GPU needs little of the CPU, an idle one none


@dataclass(frozen=True)
class ProbeBudget:
    """Times are monotonic seconds. `asked_at`: a question is out since; `ok_at`: the last good answer."""

    interval_s: float = 30.0
    asked_at: float | None = None
    ok_at: float | None = None
    failed: bool = False

    def due(self, now: float) -> bool:
        """Whether to ask: nothing is out, and the last answer was bad or is old."""
        if self.asked_at is not None:
            return False
        return self.failed or self.ok_at is None or now - self.ok_at >= self.interval_s

    def asked(self, now: float) -> "ProbeBudget":
        return replace(self, asked_at=now)

    def waited_s(self, now: float) -> float:
        """How long a question has been out."""
        return now - self.asked_at if self.asked_at is not None else 0.0

    def answered(self, verdict: Verdict, now: float) -> "ProbeBudget":
        ok_at = now if verdict.ok else self.ok_at
        return replace(self, asked_at=None, ok_at=ok_at, failed=not verdict.ok)

    def without_answer(self, now: float, burns: float, within_s: float = TOKEN_WITHIN_S) -> Verdict:
        """What the silence since `asked_at` means; `burns`: how many cores the runners use just now."""
        waited_s = self.waited_s(now)
        if waited_s < within_s:
            return Verdict(True, busy=True)
        if burns >= BURNS and waited_s < BUSY_FOR_S:
            return Verdict(True, f"busy: a token asked for waits since {waited_s:.0f} s", busy=True)
        works = ", though a runner burns CPU" if burns >= BURNS else ""
        return Verdict(False, f"no token within {waited_s:.0f} s{works}")
