"""Decide how long a step retries while a backend or the database is away. Pure: time is an argument.

A task has to survive a crash, a night with the host switched off, and a reboot, but a prompt that always
fails must not be repeated forever. So the limit for an absent backend is in hours, and the limit for failed
answers is a number.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import BackendUnavailable, DatabaseFailed, ModelMissing, OrchestratorError

MAX_DOWN_S = 24 * 3600.0
MAX_MODEL_MISSING_S = 1800.0
MAX_BAD_ANSWERS = 12
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
AWAY = (BackendUnavailable, DatabaseFailed)  # expected to return


@dataclass(frozen=True)
class StepRetry:
    """The history of one step: when it first waited (`since`), how often it waited, how many failed answers
    it had, and since when every attempt has failed because no backend has the model (`missing_since`; None:
    the last attempt failed otherwise).
    """

    since: float | None = None
    waits: int = 0
    bad_answers: int = 0
    missing_since: float | None = None

    def after(self, error: OrchestratorError, now: float) -> StepRetry:
        """Return the history after another failed attempt, which failed with `error` at the time `now`."""
        bad = self.bad_answers + (0 if isinstance(error, (*AWAY, ModelMissing)) else 1)
        since = now if self.since is None else self.since
        # Of several backends, the one that has the model may return last from an outage of hours.
        missing_since = now if self.missing_since is None else self.missing_since
        return StepRetry(
            since, self.waits + 1, bad, missing_since if isinstance(error, ModelMissing) else None
        )

    def exhausted(self, error: OrchestratorError, now: float) -> bool:
        """Return True if the step must give up at the time `now`. `error` is the error of its last attempt,
        which `after` has already recorded; it determines the limit.

        If a backend or the database is away, the limit is a day since the step's first failed attempt. If no
        backend has the model, it is half an hour in which every attempt failed for this reason. After any
        other error, it is twelve failed answers.
        """
        if isinstance(error, AWAY):
            return self.since is not None and now - self.since > MAX_DOWN_S
        if isinstance(error, ModelMissing):
            return self.missing_since is not None and now - self.missing_since > MAX_MODEL_MISSING_S
        return self.bad_answers >= MAX_BAD_ANSWERS

    @property
    def delay_s(self) -> float:
        """Return the seconds until the next attempt."""
        return min(FIRST_DELAY_S * 2 ** min(max(self.waits - 1, 0), 10), MAX_DELAY_S)
