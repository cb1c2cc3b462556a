"""Decide when a probe of a model is due and which models it may go to, and measure the time since the last
answer. Pure.

Each probe makes Ollama measure the model's keep-alive anew. So a model that has answered since its last use
is not probed again: it could never be unloaded.

Ollama serves requests in order, so a probe waits behind users' requests. The module `silence` judges a probe
without an answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from host_agent.services.ollama.answers import ModelInMemory, ModelProbeResult

TOKEN_TIMEOUT_S = 10.0
OVERDUE_S = 60.0  # Ollama may wait a few seconds for the GPU's memory before it unloads a model


@dataclass(frozen=True)
class ModelAnswer:
    """A good answer of a model to a probe.

    `received_at` is in monotonic seconds, `server_time` in seconds since 1970 by the clock of Ollama's
    server, 0 if unknown. `expires_at` is when Ollama will unload the model, by the same clock. The first
    check after the answer reads it from Ollama; before that check, it is None.
    """

    received_at: float
    server_time: float = 0.0
    expires_at: float | None = None

    def is_overdue(self, now: float) -> bool:
        """Return whether the model should have been unloaded OVERDUE_S before the monotonic time `now`, so
        that a request seems to keep it loaded. Return False if that is unknown.
        """
        if self.expires_at is None or not self.server_time:
            return False
        return now - self.received_at > self.expires_at - self.server_time + OVERDUE_S


@dataclass(frozen=True)
class ProbeBudget:
    """The history of the model probes, which decides when the next one is due. Times are monotonic seconds.

    A probe is open until it is answered or given up. It fails if the answer is bad, the connection breaks
    off, or it is given up. The next probe is due at once if the last one failed or there was none, else
    `interval_s` after the last good answer, or after no model was found in use. `asked_at` is when the open
    probe was sent, None if no probe is open. `asked_model` is the model that was probed last. `ok_at` is when
    the last good answer came, and `idle_at` when no model was found in use. `silent_since` is when the first
    unanswered probe was sent, None if all were answered. `silent_since` does not change when that probe is
    given up and another one sent, because otherwise the silence of a model that never answers would be
    measured from its newest probe. `failed` is True if the probe that ended last failed. `answers` has the
    answer of each loaded model that has not been used since, by the model's name.
    """

    interval_s: float = 30.0
    asked_at: float | None = None
    asked_model: str = ""
    ok_at: float | None = None
    idle_at: float | None = None
    silent_since: float | None = None
    failed: bool = False
    answers: Mapping[str, ModelAnswer] = field(default_factory=dict)

    def is_due(self, now: float) -> bool:
        """Return whether to send a probe at the time `now`. No probe is due while one is open. Otherwise a
        probe is due if the last one failed, if no model has given a good answer yet, or if at least
        `interval_s` seconds have passed both since the last good answer and since the last check that found
        no model in use.
        """
        if self.asked_at is not None:
            return False
        if self.failed or self.ok_at is None:
            return True
        return now - max(self.ok_at, self.idle_at or self.ok_at) >= self.interval_s

    def listed(self, loaded: Iterable[ModelInMemory]) -> "ProbeBudget":
        """Return a copy of this budget after Ollama has listed the `loaded` models. Forget the answer of each
        model that was unloaded, or used since its answer. The use shows in the time at which Ollama will
        unload the model (`expires_at`), which has changed since the answer.
        """
        kept = {}
        for model in loaded:
            answer = self.answers.get(model.name)
            if answer is not None and answer.expires_at in (None, model.expires_at):
                kept[model.name] = replace(answer, expires_at=model.expires_at)
        return replace(self, answers=kept)

    def models_to_probe(self, loaded: Iterable[ModelInMemory], now: float) -> tuple[ModelInMemory, ...]:
        """Return the `loaded` models that a probe may go to: those that have not answered since their last
        use, those that a request seems to keep loaded, and those that Ollama never unloads.

        If the last probe failed, return only the model that it went to, because another model may work; if
        that model is no longer loaded, return all `loaded` models.
        """
        loaded = tuple(loaded)
        if self.failed:
            return tuple(model for model in loaded if model.name == self.asked_model) or loaded
        return tuple(
            model
            for model in loaded
            if model.is_permanent
            or model.name not in self.answers
            or self.answers[model.name].is_overdue(now)
        )

    def answered_last(self, loaded: Iterable[ModelInMemory]) -> ModelInMemory | None:
        """Return the model among `loaded` that answered a probe most recently, by the recorded answers; None
        if none of them has a recorded answer.
        """
        known = (model for model in loaded if model.name in self.answers)
        return max(known, key=lambda model: self.answers[model.name].received_at, default=None)

    def found_idle(self, now: float) -> "ProbeBudget":
        """Return a copy of this budget that records a check at the time `now` which found no model in use,
        and therefore probed none.
        """
        return replace(self, idle_at=now)

    def asked(self, now: float, model: str = "") -> "ProbeBudget":
        """Return a copy of this budget after a probe was sent to `model` at `now`; the probe is open until it
        is answered or given up.
        """
        silent_since = now if self.silent_since is None else self.silent_since
        return replace(self, asked_at=now, asked_model=model, silent_since=silent_since)

    def waited_s(self, now: float) -> float:
        """Return for how many seconds the open probe has had no answer; 0 if no probe is open."""
        return now - self.asked_at if self.asked_at is not None else 0.0

    def silent_s(self, now: float) -> float:
        """Return how many seconds before `now` the first probe since the last answer was sent; 0 if no probe
        has been sent since that answer.
        """
        return now - self.silent_since if self.silent_since is not None else 0.0

    def since_answer_s(self, now: float) -> float:
        """Return how many seconds before `now` the last good answer came; 0 if none came."""
        return now - self.ok_at if self.ok_at is not None else 0.0

    def answered(self, verdict: ModelProbeResult, now: float) -> "ProbeBudget":
        """Return a copy of this budget after the open probe, the one that was sent last, was answered at
        `now` with the result `verdict`.
        """
        ok_at = now if verdict.ok else self.ok_at
        given = {name: answer for name, answer in self.answers.items() if name != self.asked_model}
        if verdict.ok and not verdict.busy:
            given[self.asked_model] = ModelAnswer(now, verdict.server_time)
        return replace(
            self, asked_at=None, ok_at=ok_at, silent_since=None, failed=not verdict.ok, answers=given
        )

    def given_up(self) -> "ProbeBudget":
        """Return a copy of this budget after the open probe was given up, because the model was judged to
        hang. The probe counts as failed.
        """
        return replace(self, asked_at=None, failed=True)
