"""Judge a process that does not answer: busy, hung, or too early to say. Pure.

A process that works is not hung. One request may keep its only thread for seconds, and a flood of connections
may take all of its file descriptors; a process that is killed for that loses everybody's requests. So each
question that gets no answer is judged by what the kernel shows of the process meanwhile:

    works      it used CPU time, waits for a CPU or for the disk, or its event loop runs while connections
               wait to be accepted, as it does if no file descriptor is left for them: it is BUSY
    suspended  SIGSTOP: it is HUNG at the second question
    idle       none of these. It is HUNG after `ProbePolicy.failures` unanswered questions, if these span
               `failures - 1` probe intervals, or if connections or requests wait for the process and it does
               not even wake up for them

However much it works, a process that has answered nothing for `busy_limit_s` is HUNG: it may spin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from vestal.supervision.lifecycle.probe import ProbePolicy

BUSY_CORES = 0.02
"""A process that uses at least this share of a CPU core works. A process that waits for requests uses a tenth
of it.
"""
BUSY_CPU_S = 0.03  # the kernel counts in steps of 10 ms, so that less says nothing in a short time
TURNING_PER_S = 0.5  # an event loop of Vestal's wakes at least once in 2 s, for its timers
MOST_INTERVAL_S = 10.0  # the longest interval that counts; health may be checked more rarely
QUICK_QUESTION_S = 2.0  # the least time in which a question can show that nobody serves those who wait
LATE_S = 2.0
KEPT_QUESTIONS = 8
FEW_LEFT = 0.9  # from this share of its file descriptors on, a process may soon accept nobody


@dataclass(frozen=True)
class ProcessActivity:
    """What the kernel shows of a process at one moment. A field that cannot be read is None.

    `cpu_s`                the CPU time that it has used since its start
    `wakeups`              how often it has waited for something and gone on (voluntary context switches)
    `suspended`            SIGSTOP has suspended it
    `wants_cpu`            it runs, or waits for a CPU
    `waits_for_disk`       it waits in the kernel, and no signal ends that
    `waiting_connections`  connections to its port that it has not accepted
    `unread_connections`   connections that it has accepted, with data that it has not read
    `connections`          all connections that it has accepted
    `open_files`, `max_open_files`   its file descriptors, and the most it may have
    """

    cpu_s: float | None = None
    wakeups: int | None = None
    suspended: bool | None = None
    wants_cpu: bool | None = None
    waits_for_disk: bool | None = None
    waiting_connections: int | None = None
    unread_connections: int | None = None
    connections: int | None = None
    open_files: int | None = None
    max_open_files: int | None = None


@dataclass(frozen=True)
class UnansweredQuestion:
    """A question (a health probe) that a process did not answer between `asked_at` and `given_up_at`. Times
    are monotonic seconds.

    `before` and `after` are the process's activity at `since` and at `given_up_at`. `since` is `asked_at`, or
    the end of the previous question if that got no answer either: a question that was refused at once would
    otherwise span almost no time.
    """

    asked_at: float
    given_up_at: float
    before: ProcessActivity
    after: ProcessActivity
    since: float

    @property
    def window_s(self) -> float:
        """Return how many seconds lie between the two readings of the process's activity: `before`, read at
        `since`, and `after`, read at `given_up_at`. The result is at least 0.001, so never zero.
        """
        return max(self.given_up_at - self.since, 1e-3)


class ProcessVerdict(StrEnum):
    """The verdict on a process that does not answer health probes. BUSY: it works, and will probably answer
    later. HUNG: it counts as a process that will never answer. UNDECIDED: it is too early to say.
    """

    UNDECIDED = "undecided"
    BUSY = "busy"
    HUNG = "hung"


@dataclass(frozen=True)
class ProcessJudgement:
    """A verdict, and the evidence for it in words."""

    verdict: ProcessVerdict
    evidence: str


@dataclass(frozen=True)
class UnansweredQuestions:
    """The unanswered questions (health probes) since the last answer, oldest first. Of many questions, only
    the first one and the latest ones are kept.
    """

    questions: tuple[UnansweredQuestion, ...] = ()

    def add(
        self, asked_at: float, given_up_at: float, before: ProcessActivity, after: ProcessActivity
    ) -> UnansweredQuestions:
        """Return these questions with one more, asked at `asked_at` and given up at `given_up_at` (monotonic
        seconds). `before` and `after` are the process's activity at these two times.

        The new question's `since` is `asked_at`. But if there are earlier questions, its `since` and `before`
        are the `given_up_at` and `after` of the latest of them, so that the time between the two questions
        counts too. Of the earlier questions, the first one and the latest KEPT_QUESTIONS others are kept.
        """
        question = UnansweredQuestion(asked_at, given_up_at, before, after, since=asked_at)
        if not self.questions:
            return UnansweredQuestions((question,))
        last = self.questions[-1]
        question = replace(question, before=last.after, since=last.given_up_at)
        return UnansweredQuestions((self.questions[0], *self.questions[1:][-KEPT_QUESTIONS:], question))

    def judge(self, now: float, policy: ProbePolicy) -> ProcessJudgement:
        """Return the verdict on the process that has left these questions unanswered."""
        last = self.questions[-1]
        silent_s = now - self.questions[0].asked_at
        work = evidence_of_work(last)
        unanswered = f"no answer for {silent_s:.0f} s"
        if silent_s >= policy.busy_limit_s and len(self.questions) > 1:
            why = f"for longer than {policy.busy_limit_s:g} s" + (f", although {work}" if work else "")
            return ProcessJudgement(ProcessVerdict.HUNG, f"{unanswered}, {why}")
        if work:
            limit = f"it is ended after {policy.busy_limit_s:g} s"
            return ProcessJudgement(
                ProcessVerdict.BUSY, f"busy: {unanswered}, and {work}{_crowd(last.after)}; {limit}"
            )
        idle = self._idle_questions(policy)
        if last.after.suspended and len(idle) >= min(2, policy.failures):
            return ProcessJudgement(ProcessVerdict.HUNG, f"{unanswered}: it is suspended (SIGSTOP)")
        if len(idle) >= policy.failures and _is_long_enough(idle, now, policy):
            return ProcessJudgement(
                ProcessVerdict.HUNG, f"{unanswered}, and {_idleness(last)}{_crowd(last.after)}"
            )
        return ProcessJudgement(ProcessVerdict.UNDECIDED, f"{unanswered}")

    def _idle_questions(self, policy: ProbePolicy) -> list[UnansweredQuestion]:
        """Return the questions after the latest one during which the process worked (see `evidence_of_work`),
        oldest first.

        A question that was given up later than `policy.timeout_s` + LATE_S after it was asked is left out:
        the process that asked it was itself held up, and may have missed the answer.
        """
        idle: list[UnansweredQuestion] = []
        for question in reversed(self.questions):
            if evidence_of_work(question):
                break
            if question.given_up_at - question.asked_at <= policy.timeout_s + LATE_S:
                idle.insert(0, question)
        return idle


def evidence_of_work(question: UnansweredQuestion) -> str:
    """Return in words what shows that the process worked while it left the question unanswered, such as "it
    waits for the disk"; "" if nothing shows it.
    """
    before, after = question.before, question.after
    if before.cpu_s is not None and after.cpu_s is not None:
        used_s = after.cpu_s - before.cpu_s
        if used_s >= max(BUSY_CORES * question.window_s, BUSY_CPU_S):
            return f"it works ({used_s:.1f} s of CPU time in {question.window_s:.1f} s)"
    if after.suspended:
        return ""
    if after.waits_for_disk:
        return "it waits for the disk"
    if after.wants_cpu:
        return "it waits for a CPU"
    if after.waiting_connections and _turns(question):
        return "its event loop turns, but accepts no connection"
    return ""


def _turns(question: UnansweredQuestion) -> bool:
    """Return whether the process's event loop seems to turn: during the question's `window_s`, the process
    woke up at least once, and at least TURNING_PER_S times per second. Return False if the number of its
    wake-ups is not known.
    """
    before, after = question.before.wakeups, question.after.wakeups
    if before is None or after is None:
        return False
    return after - before >= max(1.0, TURNING_PER_S * question.window_s)


def _is_long_enough(idle: list[UnansweredQuestion], now: float, policy: ProbePolicy) -> bool:
    """Return whether the process was idle for so long that it is hung, and not only slow for a moment.

    `idle` are the latest unanswered questions during which it did not work; they are at least
    `policy.failures` many.
    """
    latest = idle[-policy.failures :]
    if all(_leaves_them_waiting(question) for question in latest):
        return True
    intervals_s = (policy.failures - 1) * min(policy.interval_s, MOST_INTERVAL_S)
    return now - idle[0].asked_at >= intervals_s - 1e-6


def _leaves_them_waiting(question: UnansweredQuestion) -> bool:
    """Return whether connections or requests wait for the process, and it does not even wake up for them."""
    after = question.after
    wait = bool(after.waiting_connections or after.unread_connections)
    slept = question.before.wakeups is not None and question.before.wakeups == after.wakeups
    return wait and slept and question.given_up_at - question.asked_at >= QUICK_QUESTION_S


def _idleness(question: UnansweredQuestion) -> str:
    if question.before.cpu_s is None or question.after.cpu_s is None:
        return "it is not known to work"
    used_s = max(0.0, question.after.cpu_s - question.before.cpu_s)
    return f"it does not work ({used_s:.2f} s of CPU time in {question.window_s:.1f} s)"


def _crowd(after: ProcessActivity) -> str:
    """Return in words how many connections the process has, and how many wait for it to accept or read them.

    Its file descriptors are mentioned if few are left. Return "" if there is nothing to mention.
    """
    few_left = after.max_open_files and (after.open_files or 0) >= FEW_LEFT * after.max_open_files
    words = [
        f"{after.open_files} of {after.max_open_files} file descriptors are open" if few_left else "",
        f"open connections: {after.connections}" if after.connections else "",
        f"waiting to be accepted: {after.waiting_connections}" if after.waiting_connections else "",
        f"with data that it has not read: {after.unread_connections}" if after.unread_connections else "",
    ]
    return "".join(f"; {word}" for word in words if word)
