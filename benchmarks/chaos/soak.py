"""Make one run: first the undisturbed answers, then the same requests while the stack is killed and
upgraded.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.chaos import load, state
from benchmarks.chaos.disturbances import is_due, plan
from benchmarks.chaos.disturber import Disturber
from benchmarks.chaos.pauses import Deaths
from benchmarks.chaos.verdict import judge
from benchmarks.client.reading import Answer
from benchmarks.client.requests import ClientRequest, comes_back_by_id, make_requests
from benchmarks.client.returning import Comebacks, Sending, Watcher
from benchmarks.processes.stack import StackProcess

SETTINGS = {
    "VESTAL_SUPERVISION__MAX_RESTARTS": "10000",
    "VESTAL_SUPERVISION__BREAKER_FAILURES": "10000",
    "VESTAL_SUPERVISION__BACKOFF_BASE_S": "0.1",
    "VESTAL_SUPERVISION__BACKOFF_MAX_S": "0.2",
    "VESTAL_SUPERVISION__STOP_S": "2",
    "VESTAL_MLX__PROGRESS_TIMEOUT_S": "5",
    "VESTAL_MLX__PROMPT_CACHE_DISK": "256m",
}
"""Settings that keep limits on restarts from applying, because the benchmark itself causes about ten deaths
in a minute.
"""
DISTINCT = 90
"""How many different requests are repeated, so that even a long run stores few texts."""
REQUEST_TIMEOUT_S = 240.0
SAVE_EVERY_S = 5.0


@dataclass(frozen=True)
class Options:
    """The options of `python -m benchmarks.chaos`; `__main__.py` describes them and has their defaults."""

    requests: int
    kills: int
    kill: tuple[str, ...]
    upgrades: int
    clients: int
    seed: int
    minutes: float | None
    time_limit: float
    least_equal: float
    state: Path | None
    result: Path | None
    json: bool
    keep_home: bool
    first_port: int

    def identity(self) -> dict[str, object]:
        """Return the settings that must not change between the parts of a resumed run."""
        names = ("requests", "kills", "upgrades", "clients", "seed")
        return {name: getattr(self, name) for name in names} | {"kill": ",".join(self.kill)}


class Soak:
    """One run of the chaos test. Its counts are saved in the state file, from which it can be resumed."""

    def __init__(self, options: Options) -> None:
        self.state = state.State()
        self._options = options
        self._plan = plan(options.kills, options.kill, options.upgrades, options.seed)
        self._mix = make_requests(min(options.requests, DISTINCT), options.seed)
        self._deaths = Deaths()
        self._load_average = os.getloadavg()[0]
        self._run = secrets.token_hex(8)
        self._date = time.strftime("%Y-%m-%d %H:%M")

    async def run(self) -> None:
        """Send each different request once to the undisturbed stack, unless the state file has the answers.
        Then send the same requests repeatedly while a `Disturber` kills and upgrades the stack. Stop when all
        ordered requests, kills and upgrades are done, or when the minutes of `Options.minutes` are over.

        Raises StateError if the state file cannot be used, SystemExit if an undisturbed request fails, and
        TimeoutError if the run takes longer than the time limit.
        """
        options = self._options
        if options.state:
            self.state = state.load(options.state, options.identity())
        print("settings of this run:", ", ".join(f"{k}={v}" for k, v in SETTINGS.items()), flush=True)
        stack = StackProcess(keeps_home=options.keep_home, first_port=options.first_port, **SETTINGS)
        if options.keep_home:
            print(f"home of the stack: {stack.home}")
        try:
            await asyncio.to_thread(stack.__enter__)
            async with asyncio.timeout(options.time_limit):
                await self._undisturbed(stack)
                await self._disturbed(stack)
        finally:
            await asyncio.to_thread(stack.close)

    async def _undisturbed(self, stack: StackProcess) -> None:
        if self.state.texts:
            return
        print(f"{len(self._mix)} undisturbed requests, {self._options.clients} at once …", flush=True)
        texts: dict[int, str] = {}

        def answered(ask: ClientRequest, answer: Answer) -> None:
            if answer.fault or not answer.finished:
                raise SystemExit(f"Request {ask.number} ({ask.kind}) failed without any kill: {answer.fault}")
            texts[ask.number] = answer.text

        requests = (Sending(ask, f"{self._run}-undisturbed-{ask.number}", by_id=True) for ask in self._mix)
        await self._send(stack, requests, Watcher(Comebacks()), answered)
        self.state.texts = [texts[number] for number in range(len(self._mix))]

    async def _disturbed(self, stack: StackProcess) -> None:
        options, tally = self._options, self.state.tally
        print(f"the same with {options.kills} kills and {options.upgrades} upgrades …", flush=True)
        began, before_s = time.monotonic(), tally.elapsed_s

        def due(number: int) -> bool:
            return is_due(number, len(self._plan), tally.sent, options.requests)

        disturber = Disturber(stack, self._plan, due, tally, self._deaths, options.seed)
        disturbing = asyncio.ensure_future(disturber.run())

        def is_over() -> bool:
            tally.elapsed_s = before_s + time.monotonic() - began
            if options.minutes is not None and tally.elapsed_s > options.minutes * 60:
                return True
            return disturbing.done() and tally.sent >= options.requests

        def answered(ask: ClientRequest, answer: Answer) -> None:
            self._count(ask, answer)

        watcher = Watcher(tally.comebacks, self._refused, self._busy)
        saving = asyncio.ensure_future(self._save_regularly())
        try:
            await self._send(stack, self._requests(is_over), watcher, answered)
            if disturbing.done():
                disturbing.result()
        finally:
            tally.elapsed_s = before_s + time.monotonic() - began
            for task in (disturbing, saving):
                task.cancel()
            await asyncio.gather(disturbing, saving, return_exceptions=True)
            self._save()

    def _requests(self, is_over: Callable[[], bool]) -> Iterator[Sending]:
        number = self.state.tally.sent
        while not is_over():
            ask = self._mix[number % len(self._mix)]
            yield Sending(ask, f"{self._run}-{number}", comes_back_by_id(number))
            number += 1

    async def _send(
        self,
        stack: StackProcess,
        requests: Iterator[Sending],
        watcher: Watcher,
        answered: Callable[[ClientRequest, Answer], None],
    ) -> None:
        await load.run(stack.url, requests, self._options.clients, REQUEST_TIMEOUT_S, watcher, answered)

    def _count(self, ask: ClientRequest, answer: Answer) -> None:
        tally, wanted = self.state.tally, self.state.texts[ask.number]
        verdict = judge(answer.text, answer.finished and not answer.fault, wanted)
        why = answer.fault or f"got {answer.text!r} instead of {wanted!r}"
        tally.judged(verdict, f"{ask.number} {ask.kind}: {why}")
        for cause, pause_s in self._deaths.pauses(answer.pieces_at):
            tally.of(cause).pauses.add(pause_s)

    def _refused(self) -> None:
        self.state.tally.of(self._deaths.cause_at(time.monotonic())).refused += 1

    def _busy(self) -> None:
        self.state.tally.of(self._deaths.cause_at(time.monotonic())).busy += 1

    async def _save_regularly(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            self._save()

    def _save(self) -> None:
        if self._options.state:
            state.save(self._options.state, self._options.identity(), self.state)

    # --- what is said afterwards ---

    def unfinished(self) -> Iterator[str]:
        """Yield a line with the number of ordered requests that have not been sent, and one with the number
        of ordered kills and upgrades that have not been done; no line if the number is 0. Yield nothing if
        `Options.minutes` is set, because such a run may end before all is done.
        """
        tally = self.state.tally
        if self._options.minutes is None:
            if tally.sent < self._options.requests:
                yield f"{self._options.requests - tally.sent} requests not sent"
            if tally.done < len(self._plan):
                yield f"{len(self._plan) - tally.done} kills and upgrades not done"

    def facts(self) -> dict[str, str]:
        """Return the date, machine, load and settings of the run, for the head of its result."""
        options, tally = self._options, self.state.tally
        memory = f"{psutil.virtual_memory().total / (1 << 30):.0f} GiB"
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory}"
        ordered = f"{options.requests} requests, {options.kills} kills ({', '.join(options.kill)})"
        return {
            "Begun": f"{self._date}; {tally.elapsed_s / 60:.1f} minutes under kills",
            "Machine": machine,
            "Load average": f"{self._load_average:.1f} before it began, {os.getloadavg()[0]:.1f} at its end",
            "Load": f"{options.clients} clients at once, {len(self._mix)} different requests again and again",
            "Ordered": f"{ordered}, {options.upgrades} upgrades, seed {options.seed}",
            "Settings": ", ".join(f"{name}={value}" for name, value in SETTINGS.items()),
            "Memory of the clients": f"{psutil.Process().memory_info().rss / (1 << 20):.0f} MB",
        }
