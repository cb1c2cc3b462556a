"""One child at work: feeds its lifecycle with what happens, and does what the lifecycle asks for.

All of it runs on one event loop. `send` is the only writer of the model; news that arrives while one is
being dealt with waits its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from vestal.supervision.child_spec import ChildSpec
from vestal.supervision.clock import Clock
from vestal.supervision.errors import SupervisionError
from vestal.supervision.event_stream import EventStream
from vestal.supervision.lifecycle.child_state import Watch, initial_state
from vestal.supervision.lifecycle.messages import (
    Action,
    Adopted,
    Emit,
    Exited,
    Fell,
    Hold,
    Input,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    Persist,
    Start,
    Terminate,
    Tick,
    Woke,
)  # fmt: skip
from vestal.supervision.lifecycle.saved_state import restored, to_record
from vestal.supervision.lifecycle.states import ChildStatus
from vestal.supervision.lifecycle.transition import step
from vestal.supervision.probing import watch_health, watch_ready
from vestal.supervision.processes.child_process import ChildProcess
from vestal.supervision.state_store import StateStore

_log = logging.getLogger(__name__)
_LAUNCH_ENDS_S = 5.0


class Child:
    """The shell around one lifecycle. `on_change` is called after each step, `on_fell` on a coupled death."""

    def __init__(
        self,
        spec: ChildSpec,
        clock: Clock,
        events: EventStream,
        store: StateStore | None,
        *,
        coupled: bool,
        on_change: Callable[[Child], None],
        on_fell: Callable[[Child], None],
    ) -> None:
        self.spec = spec
        self._clock = clock
        self._events = events
        self._store = store
        self._on_change = on_change
        self._on_fell = on_fell
        self._keeper = ChildProcess(spec, partial(events.emit, spec.name))
        self._inbox: deque[Input] = deque()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timer_at: float | None = None
        self._watching: tuple[int, Watch] = (0, Watch.NONE)
        self._since_wall = clock.wall()
        self.model = initial_state(
            spec.policy,
            restart=spec.restart,
            fatal_exit_codes=spec.fatal_exit_codes,
            ready_probed=spec.ready is not None,
            health_probed=spec.health is not None,
            coupled=coupled,
            now=clock.now(),
        )

    @property
    def name(self) -> str:
        return self.spec.name

    # --- life as a whole -----------------------------------------------------------------------------------

    def begin(self, held: bool) -> None:
        """Recalls what an earlier supervisor knew, takes over what it left running, or starts."""
        if self._store is not None and self.model.run == 0:
            record = self._store.load(self.name)
            self.model = restored(self.model, record, self._clock.now(), self._clock.wall())
        if self._take_over() or self.model.by_hand:
            return
        if held:
            self.send(Hold("its turn comes"))
        self.send(Start("the supervisor started"))

    def _take_over(self) -> bool:
        """Whether an earlier supervisor's process was found (the lifecycle ends one that may not stay)."""
        if self.model.alive or (found := self._keeper.find()) is None:
            return False
        self.send(Adopted(*found, keep=self.spec.adopt))
        self._run("exit", self._await_exit(self.model.run))
        return True

    def machine_woke(self, slept_s: float) -> None:
        """The machine slept: whatever runs is asked at once."""
        self.send(Woke(slept_s))
        if self.model.watch is Watch.HEALTH:
            self._watch(at_once=True)

    async def launched(self) -> None:
        """Returns once no launch is under way."""
        while (launching := self._tasks.get("launch")) is not None:
            await asyncio.wait([launching])

    async def detach(self) -> None:
        """Stops looking after it, and leaves its process running."""
        with contextlib.suppress(TimeoutError):  # a launch half done would leave a process nobody knows
            async with asyncio.timeout(_LAUNCH_ENDS_S):
                await self.launched()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._timer_at = None
        self._keeper.detach()

    # --- the one writer ------------------------------------------------------------------------------------

    def send(self, news: Input) -> None:
        """Tells the lifecycle, and does what it asks for."""
        self._inbox.append(news)
        if len(self._inbox) > 1:
            return  # whoever is at it will come to this
        while self._inbox:
            try:
                self._take(self._inbox[0])
            finally:
                self._inbox.popleft()

    def _take(self, news: Input) -> None:
        before = self.model
        self.model, actions = step(before, news, self._clock.now())
        if self.model.state is not before.state:
            self._since_wall = self._clock.wall()
        for action in actions:
            self._do(action)
        self._keep_time()
        self._keep_watch()
        self._on_change(self)

    def _do(self, action: Action) -> None:
        match action:
            case Launch(run):
                self._run("launch", self._launch(run))
            case Terminate():
                self._keeper.terminate()
            case Kill():
                self._keeper.kill()
            case Emit(event, cause, fields):
                self._events.emit(self.name, event, cause, **fields)
            case Persist():
                self._persist()
            case Fell():
                self._on_fell(self)

    def _persist(self) -> None:
        if self._store is None:
            return
        record = to_record(self.model, self._clock.now(), self._clock.wall())
        try:
            self._store.save(self.name, record)
        except OSError as error:
            self._events.emit(self.name, "state_not_saved", str(error))

    # --- processes -----------------------------------------------------------------------------------------

    async def _launch(self, run: int) -> None:
        try:
            async with asyncio.timeout(self.spec.policy.start_timeout_s):
                if self.spec.before_launch is not None:
                    await self.spec.before_launch()
                pid = await self._keeper.launch()
        except TimeoutError:
            self.send(LaunchFailed(run, "the launcher did not come to an end"))
        except (SupervisionError, OSError) as error:
            self.send(LaunchFailed(run, str(error)))
        except Exception as error:  # a launcher from elsewhere: its fault is the child's, not ours
            _log.exception("the launcher of %s failed", self.name)
            self.send(LaunchFailed(run, f"the launcher failed: {error!r}"))
        else:
            self.send(Launched(run, pid))
            self._run("exit", self._await_exit(run))

    async def _await_exit(self, run: int) -> None:
        status, last_words = await self._keeper.wait()
        self.send(Exited(run, status, last_words))

    # --- time and probes -----------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        wake_at = self.model.wake_at
        if wake_at == self._timer_at:
            return
        self._timer_at = wake_at
        self._cancel("timer")
        if wake_at is not None:
            self._run("timer", self._tick_at(wake_at))

    async def _tick_at(self, wake_at: float) -> None:
        while (left_s := wake_at - self._clock.now()) > 0:  # a timer may fire a shade early
            await self._clock.sleep(left_s)
        self._timer_at = None
        self._tasks.pop("timer", None)
        self.send(Tick())

    def _keep_watch(self) -> None:
        wanted = (self.model.run, self.model.watch)
        if wanted == self._watching:
            return
        self._watching = wanted
        self._watch()

    def _watch(self, at_once: bool = False) -> None:
        self._cancel("watch")
        run, watch = self._watching
        pid = self.model.pid
        if pid is None:
            return
        if watch is Watch.READY and self.spec.ready is not None:
            self._run("watch", watch_ready(self.spec, self._clock, self.send, run, pid))
        elif watch is Watch.HEALTH and self.spec.health is not None:
            self._run("watch", watch_health(self.spec, self._clock, self.send, run, pid, at_once))

    # --- tasks ---------------------------------------------------------------------------------------------

    def _run(self, kind: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name}:{kind}")
        self._tasks[kind] = task
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        for kind, known in list(self._tasks.items()):
            if known is task:
                del self._tasks[kind]
        with contextlib.suppress(asyncio.CancelledError):
            if (error := task.exception()) is not None:
                _log.error("%s failed", task.get_name(), exc_info=error)

    def _cancel(self, kind: str) -> None:
        task = self._tasks.pop(kind, None)
        if task is not None:
            task.cancel()

    # --- telling -------------------------------------------------------------------------------------------

    def status(self) -> ChildStatus:
        m = self.model
        return ChildStatus(
            state=m.state,
            process_pid=m.pid,
            restart_count=m.restarts,
            health_check_failures=m.failures,
            circuit_breaker_state=str(m.breaker.state),
            uptime_s=max(0.0, self._clock.now() - m.started_at) if m.pid is not None else 0.0,
            detail=m.detail,
            last_exit=m.last_exit,
            since=self._since_wall,
        )
