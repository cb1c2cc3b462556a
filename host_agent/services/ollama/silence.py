"""Judge a probe that gets no answer: is the model busy with other requests, or does it hang? Before a probe,
judge whether a request uses a model at all. Pure.

A runner whose tokens advance is busy, however long its queue. A runner that works without progress counts as
hung, after `no_progress_s` if it uses CPU, and after STANDSTILL_S if it uses none. A runner that does not
show its progress is judged by its CPU time alone, which counts as work for BUSY_FOR_S only, because a runner
may use 100 % CPU and never write a token (ollama/ollama issue 10516).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from host_agent.services.ollama.runner_readings import RunnerActivity, RunnerReading

NO_PROGRESS_S = 300.0  # one step of 512 tokens takes this long only at less than 2 tokens a second
STANDSTILL_S = 60.0  # a GPU's runner needs no CPU while it waits for a step, which takes seconds
BUSY_FOR_S = 900.0
BUSY_CORES = 0.02  # a runner on a GPU needs little of the CPU, an idle runner none
BUSY_CORES_WITHOUT_SLOT = (
    0.2  # for a runner with idle slots, which may split a long prompt into tokens, or only answer us
)
IDLE_CONNECTION_S = 95.0  # net/http of Go, in which Ollama is written, closes an idle connection after 90 s


@dataclass(frozen=True)
class RunnerJudgement:
    """Says whether a silent model hangs or is busy. `basis` names the evidence, `detail` describes it."""

    hangs: bool
    basis: str
    detail: str


@dataclass(frozen=True)
class ProgressWatch:
    """Shows whether Ollama's runners make progress while probes get no answer.

    `marks` has for each runner's PID its last progress mark, a value that changes with all progress (such as
    the runner's token counts), and when the mark last changed or was first read, in monotonic seconds.
    `advanced` holds the PIDs of the runners whose mark changed at the last reading.
    """

    marks: Mapping[int, tuple[object, float]] = field(default_factory=dict)
    advanced: frozenset[int] = frozenset()

    def after(self, readings: Iterable[RunnerReading], now: float) -> "ProgressWatch":
        """Return a copy of this watch, updated with a new reading of each runner, taken at `now`."""
        marks: dict[int, tuple[object, float]] = {}
        advanced = set()
        for runner in readings:
            before = self.marks.get(runner.pid)
            mark = runner.reading.mark
            if before is None:
                marks[runner.pid] = (mark, now)
            elif mark is None or mark == before[0]:
                marks[runner.pid] = before
            else:
                marks[runner.pid] = (mark, now)
                advanced.add(runner.pid)
        return ProgressWatch(marks, frozenset(advanced))

    def standing_s(self, pid: int, now: float) -> float:
        """Return for how many seconds before `now` the runner `pid` has shown no progress; 0 if no reading of
        it was made.
        """
        return now - self.marks[pid][1] if pid in self.marks else 0.0


def judge(
    readings: Iterable[RunnerReading],
    watch: ProgressWatch,
    silent_s: float,
    now: float,
    no_progress_s: float = NO_PROGRESS_S,
) -> RunnerJudgement:
    """Return whether a model that has not answered a probe for `silent_s` seconds is busy or hangs, and on
    what evidence.

    `readings` say what each runner does at the monotonic time `now`. `watch`, already updated with them, says
    for how long each has made no progress. A runner counts as working if its reading has the activity
    WORKING: a request seems to be in progress.

    If runners work, the model hangs if one of them has made no progress for `no_progress_s` seconds, and is
    busy otherwise; for a runner that uses no CPU, the limit is STANDSTILL_S if that is less. If none works,
    the model is busy while a runner loads its model or uses CPU, but only for the first BUSY_FOR_S seconds of
    `silent_s`; otherwise it hangs.
    """
    readings = tuple(readings)
    working = [runner for runner in readings if runner.reading.activity is RunnerActivity.WORKING]
    for runner in working:
        standing_s = watch.standing_s(runner.pid, now)
        if standing_s >= _limit_s(runner, no_progress_s):
            stands = f"{_works(runner)} and has made no progress for {standing_s:.0f} s"
            return _hangs("no_progress", silent_s, stands, runner)
    for runner in working:
        if runner.pid in watch.advanced:
            return _busy("progress", silent_s, f"{_works(runner)} and makes progress", runner)
    for runner in working:
        standing_s, limit_s = watch.standing_s(runner.pid, now), _limit_s(runner, no_progress_s)
        stands = (
            f"no progress has been seen for {standing_s:.0f} s, and after {limit_s:.0f} s it counts as hung"
        )
        return _busy("progress", silent_s, f"{_works(runner)}; {stands}", runner)
    for runner in readings:
        idle = runner.reading.activity is RunnerActivity.IDLE
        least_cores = BUSY_CORES_WITHOUT_SLOT if idle else BUSY_CORES
        if runner.cores >= least_cores or runner.reading.activity is RunnerActivity.LOADING:
            limit = f"only its CPU time shows that it works, which is believed for {BUSY_FOR_S:.0f} s"
            judged = _busy if silent_s < BUSY_FOR_S else _hangs
            return judged("cpu", silent_s, f"{_works(runner)}; {limit}", runner)
    at_rest = "; ".join(f"its runner (PID {r.pid}) uses no CPU, and {r.reading.evidence}" for r in readings)
    return RunnerJudgement(
        True, "at_rest", f"no token within {silent_s:.0f} s; {at_rest or 'it has no runner'}"
    )


def is_used(readings: Iterable[RunnerReading], since_answer_s: float) -> bool:
    """Return whether a client's request seems to use one of the runners: the runner works, loads its model,
    uses at least BUSY_CORES_WITHOUT_SLOT CPU cores, or has a connection from Ollama's server for a request.
    Call this only while no probe is open, since a probe would look like a request. The last probe was
    answered `since_answer_s` seconds ago.

    Ollama's server closes its connection to a runner of the type `llama-server` at the end of each request.
    It keeps a connection to any other runner open for a while after a request or a probe, so such a
    connection is evidence of a client's request only if the last probe was answered at least
    IDLE_CONNECTION_S ago. The connection over which it asks an MLX runner for its status always stays open,
    and is left out of `RunnerReading.connected`.
    """
    return any(
        runner.reading.activity in (RunnerActivity.WORKING, RunnerActivity.LOADING)
        or runner.cores >= BUSY_CORES_WITHOUT_SLOT
        or (
            runner.connected
            and (runner.reading.activity is RunnerActivity.IDLE or since_answer_s >= IDLE_CONNECTION_S)
        )
        for runner in readings
    )


def _limit_s(runner: RunnerReading, no_progress_s: float) -> float:
    """Return for how many seconds this runner may make no progress before it counts as hung: `no_progress_s`
    if it uses CPU, else the lesser of `no_progress_s` and STANDSTILL_S.
    """
    return no_progress_s if runner.cores >= BUSY_CORES else min(STANDSTILL_S, no_progress_s)


def _works(runner: RunnerReading) -> str:
    return f"its runner (PID {runner.pid}) uses {runner.cores:.1f} cores"


def _hangs(basis: str, silent_s: float, sentence: str, runner: RunnerReading) -> RunnerJudgement:
    return RunnerJudgement(
        True, basis, f"no token within {silent_s:.0f} s; {sentence} ({runner.reading.evidence})"
    )


def _busy(basis: str, silent_s: float, sentence: str, runner: RunnerReading) -> RunnerJudgement:
    waits = f"busy: a token asked for waits since {silent_s:.0f} s"
    return RunnerJudgement(False, basis, f"{waits}; {sentence} ({runner.reading.evidence})")
