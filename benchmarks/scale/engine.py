"""Simulate the engine of one machine: requests in slots, steps of the batch, prompts, and the prompt cache.

Between two events all requests advance at constant rates. Each iteration of the engine is one step for all
answers and one chunk of each prompt, as in `mlx_server/engine/generation/batch.py`, so that prompts and
answers slow each other down.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.scale.events import EventLoop
from benchmarks.scale.parameters import EngineParameters
from benchmarks.scale.workload import Part, Turn

NEARLY_TOKENS, NEARLY_S = 1e-6, 1e-9
"""Less work than this many tokens or seconds counts as done, because the simulated clock cannot represent the
time that it takes.
"""


class PromptCache:
    """Simulates a prompt cache: the parts of prompts whose keys and values are stored. The least recently
    used part is dropped first.
    """

    def __init__(self, size_tokens: int) -> None:
        self._size_tokens = size_tokens
        self._parts: OrderedDict[str, int] = OrderedDict()
        self.tokens = 0

    def cached_tokens(self, parts: Iterable[Part]) -> int:
        """Return how many tokens at the beginning of a prompt are stored."""
        cached = 0
        for name, tokens in parts:
            if name not in self._parts:
                break
            cached += tokens
        return cached

    def store(self, parts: Iterable[Part]) -> None:
        """Store the parts of a prompt, and mark them as used in reverse order. The first part then counts as
        the most recently used and is dropped last, because later parts are of use only after the first.
        """
        for name, tokens in reversed(tuple(parts)):
            if name not in self._parts:
                self.tokens += tokens
            self._parts[name] = tokens
            self._parts.move_to_end(name)
        while self.tokens > self._size_tokens:
            _, tokens = self._parts.popitem(last=False)
            self.tokens -= tokens


@dataclass(eq=False)
class Job:
    """A turn that occupies one of the engine's slots. `prompt_left` is the work that is left before the next
    token of the answer, in tokens to compute. A token that is restored from the prompt cache counts as the
    fraction `restored_token_cost` of a token. `answer_left` is how many tokens of the answer are left to
    generate.
    """

    turn: Turn
    prompt_left: float
    answer_left: float


class Engine:
    """Simulates one machine's engine. `on_finished` is called with each turn when its answer is complete."""

    def __init__(
        self, loop: EventLoop, parameters: EngineParameters, on_finished: Callable[[Turn], None]
    ) -> None:
        self._loop = loop
        self._parameters = parameters
        self._on_finished = on_finished
        self.cache = PromptCache(parameters.cache_tokens)
        self.waiting: deque[Turn] = deque()
        self.jobs: list[Job] = []
        self.is_up = True
        self.busy_s = 0.0
        self._advanced_at = 0.0
        self._version = 0

    def submit(self, turn: Turn) -> None:
        """Start the turn, or queue it until a slot is free."""
        self._advance()
        self.waiting.append(turn)
        self._settle()

    def kill(self) -> list[Turn]:
        """Stop the engine. Return its turns: first the running ones, then the waiting ones."""
        self._advance()
        turns = [job.turn for job in self.jobs] + list(self.waiting)
        self.jobs.clear()
        self.waiting.clear()
        self.is_up = False
        self._settle()
        return turns

    def start(self, turns: Iterable[Turn] = ()) -> None:
        """Start a new engine after `kill`. `turns` are the unfinished turns (requests) of the killed engine.
        They run in this order, before the turns that were submitted since the kill.
        """
        self._advance()
        self.is_up = True
        self.waiting.extendleft(reversed(tuple(turns)))
        self._settle()

    def _rates(self) -> tuple[float, float]:
        """Return the speeds at which each prompt and each answer advance, in tokens per second."""
        given = self._parameters
        prompts = sum(job.prompt_left > 0 for job in self.jobs)
        step_s = given.step_for(len(self.jobs) - prompts)
        turn_s = step_s + prompts * given.prompt_step_tokens / given.prompt_tokens_per_s
        return given.prompt_step_tokens / turn_s, 1 / turn_s

    def _advance(self) -> None:
        passed_s, self._advanced_at = self._loop.now - self._advanced_at, self._loop.now
        if not self.jobs:
            return
        self.busy_s += passed_s
        prompt_rate, answer_rate = self._rates()
        for job in self.jobs:
            if job.prompt_left > 0:
                job.prompt_left -= prompt_rate * passed_s
                if job.prompt_left < max(NEARLY_TOKENS, prompt_rate * NEARLY_S):
                    job.prompt_left = 0.0
                    self._begin_answer(job)
            else:
                done = min(answer_rate * passed_s, job.answer_left)
                job.answer_left -= done
                job.turn.given += done
                if job.answer_left < max(NEARLY_TOKENS, answer_rate * NEARLY_S):
                    job.answer_left = 0.0

    def _begin_answer(self, job: Job) -> None:
        turn = job.turn
        self.cache.store(turn.parts)
        if turn.first_token_at is None:
            turn.first_token_at = self._loop.now
        if turn.cut_off_at is not None:
            turn.pauses_s.append(self._loop.now - turn.cut_off_at)
            turn.cut_off_at = None

    def _settle(self) -> None:
        """Finish the turns whose answers are complete, and start waiting turns in the free slots. Schedule
        the next call of this method for the time when the next prompt or answer will be complete.
        """
        finished = [job for job in self.jobs if job.prompt_left == job.answer_left == 0]
        self.jobs = [job for job in self.jobs if job not in finished]
        while self.is_up and self.waiting and len(self.jobs) < self._parameters.slots:
            self.jobs.append(self._job(self.waiting.popleft()))
        self._version += 1
        if self.jobs:
            prompt_rate, answer_rate = self._rates()
            left = (
                job.prompt_left / prompt_rate if job.prompt_left > 0 else job.answer_left / answer_rate
                for job in self.jobs
            )
            self._loop.after(min(left), lambda version=self._version: self._wake(version))  # type: ignore[misc]
        for job in finished:
            self.cache.store((*job.turn.parts, job.turn.answer_part))
            self._on_finished(job.turn)

    def _wake(self, version: int) -> None:
        if version == self._version:
            self._advance()
            self._settle()

    def _job(self, turn: Turn) -> Job:
        cached = self.cache.cached_tokens(turn.parts)
        has_whole_prompt = cached == turn.prompt_tokens
        given = int(turn.given)
        again = min(given, self._parameters.recomputed_tokens) if has_whole_prompt else given
        computed = turn.prompt_tokens - cached + again
        turn.computed_tokens += computed
        restored = turn.prompt_tokens + given - computed
        prompt_left = max(computed, 1) + restored * self._parameters.restored_token_cost
        return Job(turn, prompt_left, max(turn.answer_tokens - turn.given, 0.0))
