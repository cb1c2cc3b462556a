"""Decide how long a step retries while a backend or the database is away. Pure: time is an argument.

A task has to survive a crash, a night with the host switched off, and a reboot, but a prompt that always
fails must not be repeated forever. So the limit for an absent backend is in hours, and the limit for failed
answers is a number.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import (
    BackendBusy,
    BackendUnavailable,
    DatabaseFailed,
    EngineCrashed,
    ModelMissing,
    OrchestratorError,
)

MAX_DOWN_S = 24 * 3600.0
MAX_MODEL_MISSING_S = 1800.0
MAX_BAD_ANSWERS = 12
MAX_CRASHES = 2  # each stands for three dead engines, and so for as many interrupted answers of others
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
MAX_ASKED_DELAY_S = 300.0  # that a busy backend can ask for
AWAY = (BackendUnavailable, DatabaseFailed)  # expected to return


@dataclass(frozen=True)
class StepRetry:
    """The history of one step's failed attempts. Times and durations are in seconds.

    `since`          when the first attempt failed; None: none has failed
    `waits`          how many attempts have failed, each of which is followed by a wait
    `bad_answers`    how many of them failed for another reason than that a backend or the database was away,
                     a backend was busy, or no backend had the model
    `missing_since`  since when every attempt has failed because no backend has the model; None: the last
                     attempt did not fail for this reason
    `crashes`        how many attempts killed the backend's engine
    `asked_s`        how long the backend asked to wait after the last attempt; 0: it did not ask
    """

    since: float | None = None
    waits: int = 0
    bad_answers: int = 0
    missing_since: float | None = None
    crashes: int = 0
    asked_s: float = 0.0

    def after(self, error: OrchestratorError, now: float) -> StepRetry:
        """Return the history after another failed attempt, which failed with `error` at the time `now`."""
        bad = self.bad_answers + (0 if isinstance(error, (*AWAY, ModelMissing)) else 1)
        since = now if self.since is None else self.since
        # Of several backends, the one that has the model may return last from an outage of hours.
        missing_since = now if self.missing_since is None else self.missing_since
        return StepRetry(
            since,
            self.waits + 1,
            bad,
            missing_since if isinstance(error, ModelMissing) else None,
            self.crashes + isinstance(error, EngineCrashed),
            error.retry_after_s if isinstance(error, BackendBusy) else 0.0,
        )

    def exhausted(self, error: OrchestratorError, now: float) -> bool:
        """Return True if the step must give up at the time `now`. `error` is the error of its last attempt,
        which `after` has already recorded; it determines the limit.

        If a backend is away or busy, or the database is away, the limit is a day since the step's first
        failed attempt. If no backend has the model, it is half an hour in which every attempt failed for this
        reason. If the step's request killed the backend's engine, it is the second such attempt. After any
        other error, it is twelve failed answers.
        """
        if isinstance(error, AWAY):
            return self.since is not None and now - self.since > MAX_DOWN_S
        if isinstance(error, ModelMissing):
            return self.missing_since is not None and now - self.missing_since > MAX_MODEL_MISSING_S
        if isinstance(error, EngineCrashed) and self.crashes >= MAX_CRASHES:
            return True
        return self.bad_answers >= MAX_BAD_ANSWERS

    @property
    def delay_s(self) -> float:
        """Return the seconds until the next attempt: a delay that grows with each attempt, or longer if the
        backend asked for that.
        """
        own_s = min(FIRST_DELAY_S * 2 ** min(max(self.waits - 1, 0), 10), MAX_DELAY_S)
        return max(own_s, min(self.asked_s, MAX_ASKED_DELAY_S))
