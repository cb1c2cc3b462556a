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
AT_ONCE_S = 0.1


class HealthCheck:
    """Sends health probes (questions) to one process, and judges a process that does not answer: it is busy,
    it hangs, or it is too early to say.

    `probe` and `activity` are called with the process's PID. `activity` returns what the kernel shows of the
    process; without it, a process that does not answer never counts as busy. The supervisor, the monitor and
    recovery passes share this object. Their unanswered questions are counted together, and simultaneous
    callers share one question.
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
        """Forget the unanswered health probes, so that they count no longer: the machine has slept since, or
        the process was replaced.
        """
        self._silence = UnansweredQuestions()

    async def ask(self, pid: int) -> ProbeResult:
        """Ask the process once. Return its answer, or the judgement on the process if it does not answer.

        A probe that raises, or does not return in time, counts as unanswered.
        """
        if self._asking is None or self._asking.done() or pid != self._pid:
            if pid != self._pid:
                self._pid, self._silence, self._requests = pid, UnansweredQuestions(), None
            self._asking = asyncio.ensure_future(self._ask(pid))
        return await asyncio.shield(self._asking)

    async def settle(self, pid: int, is_current: Callable[[], bool] = lambda: True) -> ProbeResult:
        """Ask until the process answers well, or is known to be busy or hung; return the last result.

        Give up after `failures` bad answers in a row, or as soon as `is_current` returns False.
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
        asked_at = self._clock.now()
        result, before = await self._probe_and_look(pid)
        if pid != self._pid:  # another process has taken its place meanwhile, and is asked now
            return result
        if result.answered:
            self._silence, self._requests = UnansweredQuestions(), result.requests
            return result
        given_up_at, after = self._clock.now(), await self._read_activity(pid)
        silence = self._silence.add(asked_at, given_up_at, before or after, after)
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

    async def _probe_and_look(self, pid: int) -> tuple[ProbeResult, ProcessActivity | None]:
        """Probe the process. Return the result, and the process's activity during or just before the probe.

        The activity is read when the probe has taken AT_ONCE_S. A process at rest answers sooner, and the
        activity is then None, because reading it takes longer than such a probe. But if the previous probe
        got no answer, the activity is read before this probe begins, and is never None.
        """
        if self._silence.questions:
            before = await self._read_activity(pid)
            return await run_probe(self._probe, pid, self._timeout_s(before)), before
        probing = asyncio.ensure_future(run_probe(self._probe, pid, self._policy.timeout_s))
        try:
            done, _ = await asyncio.wait({probing}, timeout=AT_ONCE_S)
            soon_after = None if done else await self._read_activity(pid)
            return await probing, soon_after
        finally:
            probing.cancel()

    def _timeout_s(self, before: ProcessActivity) -> float:
        """Return how many seconds to wait for the answer to the next probe: the policy's `timeout_s`, but at
        most SUSPENDED_TIMEOUT_S if the process is suspended (SIGSTOP) and did not answer the previous probe.

        `before` is the process's activity, read just before the probe.
        """
        if before.suspended and self._silence.questions:
            return min(self._policy.timeout_s, SUSPENDED_TIMEOUT_S)
        return self._policy.timeout_s

    async def _read_activity(self, pid: int) -> ProcessActivity:
        """Return the process's activity as the kernel shows it; all its fields are None if it cannot be
        read.
        """
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
