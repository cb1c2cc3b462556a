"""Ask a process for its health, and judge it if it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from vestal.supervision.clock import Clock
from vestal.supervision.health.silence import ProcessActivity, ProcessVerdict, UnansweredQuestions
from vestal.supervision.lifecycle.probe import ProbePolicy, ProbeResult
from vestal.supervision.lifecycle.states import State

_log = logging.getLogger(__name__)
ACTIVITY_TIMEOUT_S = 3.0
PAUSE_S = 1.0
SUSPENDED_TIMEOUT_S = 1.0


class HealthCheck:
    """Asks one process, and remembers the questions that it left unanswered.

    The supervisor, the monitor and recovery passes share this object. Their unanswered questions are counted
    together, and simultaneous callers share one question.
    """

    def __init__(
        self,
        probe: Callable[[int], Awaitable[ProbeResult]],
        activity: Callable[[int], Awaitable[ProcessActivity]] | None,
        policy: ProbePolicy,
        clock: Clock,
    ) -> None:
        self._probe, self._activity, self._policy, self._clock = probe, activity, policy, clock
        self._pid = 0
        self._silence = UnansweredQuestions()
        self._requests: int | None = None  # in progress at the last answer
        self._asking: asyncio.Task[ProbeResult] | None = None

    def forget(self) -> None:
        """Forget the unanswered questions: the machine slept meanwhile."""
        self._silence = UnansweredQuestions()

    async def ask(self, pid: int) -> ProbeResult:
        """Ask the process once. Return its answer, or, if it does not answer, the judgement on it.

        A probe that raises, or does not return in time, counts as unanswered.
        """
        if self._asking is None or self._asking.done() or pid != self._pid:
            if pid != self._pid:
                self._pid, self._silence, self._requests = pid, UnansweredQuestions(), None
            self._asking = asyncio.ensure_future(self._ask(pid))
        return await asyncio.shield(self._asking)

    async def settle(self, pid: int, is_current: Callable[[], bool] = lambda: True) -> ProbeResult:
        """Ask until the process has answered well, is known to be busy, or is known to be hung.

        A bad answer settles it when it has come `failures` times. End early if `is_current` returns False.
        """
        bad_answers = 0
        while True:
            asked_at = self._clock.now()
            result = await self.ask(pid)
            bad_answers = bad_answers + 1 if result.answered else 0
            if result.alive or result.hung or bad_answers >= self._policy.failures or not is_current():
                return result
            # A question that was refused at once is not asked again at once.
            await self._clock.sleep(min(self._policy.interval_s, PAUSE_S) - (self._clock.now() - asked_at))
            if not is_current():
                return result

    async def _ask(self, pid: int) -> ProbeResult:
        before, asked_at = await self._read_activity(pid), self._clock.now()
        result = await run_probe(self._probe, pid, self._timeout_s(before))
        if pid != self._pid:  # another process has taken its place meanwhile, and is asked now
            return result
        if result.answered:
            self._silence, self._requests = UnansweredQuestions(), result.requests
            return result
        given_up_at, after = self._clock.now(), await self._read_activity(pid)
        silence = self._silence.add(asked_at, given_up_at, before, after)
        self._silence = silence if pid == self._pid else self._silence
        judgement = silence.judge(given_up_at, self._policy)
        served = f"; requests in progress at its last answer: {self._requests}" if self._requests else ""
        match judgement.verdict:
            case ProcessVerdict.BUSY:
                return ProbeResult(False, judgement.evidence + served, State.BUSY, answered=False, hung=False)
            case ProcessVerdict.HUNG:
                why = f" ({result.detail})" if result.detail else ""
                return ProbeResult(False, judgement.evidence + served + why, answered=False, hung=True)
            case ProcessVerdict.UNDECIDED:
                return ProbeResult(False, result.detail, answered=False, hung=False)

    def _timeout_s(self, before: ProcessActivity) -> float:
        """Return how long to wait for the answer, in seconds: only briefly if the process was suspended by
        SIGSTOP before.
        """
        if before.suspended and self._silence.questions:
            return min(self._policy.timeout_s, SUSPENDED_TIMEOUT_S)
        return self._policy.timeout_s

    async def _read_activity(self, pid: int) -> ProcessActivity:
        """Return the process's activity as the kernel shows it; one without values if it cannot be read."""
        if self._activity is None:
            return ProcessActivity()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACTIVITY_TIMEOUT_S):
                try:
                    return await self._activity(pid)
                except Exception:  # without it the process is judged by its answers alone
                    _log.warning("the activity of PID %d could not be read", pid, exc_info=True)
        return ProcessActivity()


async def run_probe(
    probe: Callable[[int], Awaitable[ProbeResult]], pid: int, timeout_s: float
) -> ProbeResult:
    """Return the probe's result. A probe that raises, or does not return in time, counts as unanswered."""
    try:
        async with asyncio.timeout(timeout_s):
            return await probe(pid)
    except TimeoutError:
        return ProbeResult(False, f"no answer within {timeout_s:g} s", answered=False)
    except Exception as error:  # whatever a probe raises, the child has not answered
        return ProbeResult(False, str(error) or repr(error), answered=False)
