"""How long a task's step waits for a backend, or for its database. Pure: the waits so far come as arguments.

A task must outlive a crash, a night with the host off, a reboot; it must not circle for ever around a
prompt that always fails. So waiting for a backend is measured in hours, answers that are errors in number.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import BackendUnavailable, DatabaseFailed, ModelMissing, OrchestratorError

DOWN_FOR_S = 24 * 3600.0
MODEL_MISSING_FOR_S = 1800.0
BAD_ANSWERS = 12
FIRST_DELAY_S = 0.5
MOST_DELAY_S = 30.0
AWAY = (BackendUnavailable, DatabaseFailed)  # and will be back


@dataclass(frozen=True)
class StepRetry:
    """What one step has been through: when it first waited, its waits in a row, its bad answers."""

    since: float | None = None
    waits: int = 0
    bad_answers: int = 0

    def after(self, error: OrchestratorError, now: float) -> StepRetry:
        bad = self.bad_answers + (0 if isinstance(error, (*AWAY, ModelMissing)) else 1)
        return StepRetry(now if self.since is None else self.since, self.waits + 1, bad)

    def exhausted(self, error: OrchestratorError, now: float) -> bool:
        """Whether to give up: never while a backend is merely away, short of a day."""
        waited_s = now - (now if self.since is None else self.since)
        if isinstance(error, AWAY):
            return waited_s > DOWN_FOR_S
        if isinstance(error, ModelMissing):
            return waited_s > MODEL_MISSING_FOR_S
        return self.bad_answers >= BAD_ANSWERS

    @property
    def delay_s(self) -> float:
        return min(FIRST_DELAY_S * 2 ** min(max(self.waits - 1, 0), 10), MOST_DELAY_S)
