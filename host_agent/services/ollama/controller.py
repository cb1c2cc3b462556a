"""Starts, stops and restarts Ollama: our own under a supervisor, anybody else's through its owner."""

import asyncio
import contextlib
import os
from collections.abc import Callable

from host_agent.errors import NotPossible
from host_agent.service_manager import unit_lookup
from host_agent.services import OLLAMA, terminate
from host_agent.services.ollama import installation, server_process
from host_agent.services.ollama.control_plan import ControlPlan, Tools, way
from host_agent.services.ollama.discovery import Discovery, agents_folder
from host_agent.services.ollama.installation import Address
from host_agent.services.ollama.ownership import Owner, OwnerKind
from vestal.config import Config
from vestal.platform import model_servers
from vestal.platform.commands import run_async
from vestal.platform.memory_headroom import Headroom
from vestal.supervision import (
    ChildStatus,
    Event,
    LaunchError,
    Probe,
    State,
    StateStore,
    Supervisor,
    read_pid_file,
    start_time,
)
from vestal.supervision.processes.identity import boot_id

RECORD = "ollama.owner"
COMMAND_WITHIN_S = 90.0
APP_RUNS = "the menu-bar app Ollama.app runs, and keeps a server of its own"


class OllamaController:
    """The supervisor of our own `ollama serve`, and the hand that turns to an owner. `owner` is who looked
    after it when it was last looked at. A stop by hand is kept until a start by hand."""

    def __init__(
        self,
        config: Config,
        where: Address,
        survey: Discovery,
        store: StateStore,
        on_event: Callable[[Event], None],
        *,
        ready: Probe,
        health: Probe,
        look: Callable[[], Headroom] = model_servers.current_headroom,
    ) -> None:
        self._config, self._where, self._survey, self._store = config, where, survey, store
        self._look = look
        self.acts = config.ollama.manage in ("auto", "always") and where.local
        self._spec = server_process.spec(config, where, ready, health, self._guard)
        # Apart from the agent's other children: only this one may be there without being ours to start.
        self._supervisor = Supervisor((self._spec,), on_event=on_event, store=store, name=OLLAMA)
        self._begun = False
        self.owner = Owner()

    # --- how things stand ---------------------------------------------------------------------------------

    def status(self) -> ChildStatus:
        return self._supervisor.status()[OLLAMA]

    @property
    def pid(self) -> int | None:
        """Of our own child."""
        return self.status().process_pid

    @property
    def has_one(self) -> bool:
        """Whether our supervisor is at it: it runs one, or is about to, or has given it up."""
        return self._begun and self.status().state is not State.STOPPED

    @property
    def stopped_by_hand(self) -> bool:
        return any((self._store.load(name) or {}).get("stopped_by_hand") for name in (OLLAMA, RECORD))

    def how(self, owner: Owner) -> str:
        """How it is started, or restarted where it runs, for people."""
        found = self.way(owner, "restart" if owner.runs else "start")
        if found.ours and not owner.runs:
            return "the next recovery pass starts it"
        return str(found) if found.refusal else f"to have it back: {found}"

    def way(self, owner: Owner, action: str) -> ControlPlan:
        tools = Tools(os.getuid(), unit_lookup.brew(), agents_folder(), self.acts)
        return way(owner, action, tools)

    # --- begin and end ------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """At the agent's start."""
        if not self.acts:
            return
        identity = read_pid_file(self._spec.pid_file) if self._spec.pid_file else None
        if identity is not None and start_time(identity.pid) is None and identity.boot in ("", boot_id()):
            # Both died: what is left of that group would be killed as the next one starts.
            await server_process.end_runners(
                await asyncio.to_thread(server_process.runners_of_group, identity.pid)
            )
        if identity is not None and identity.alive():
            await self._bring_up("the agent started")
        elif not self.stopped_by_hand and installation.installed():
            self.owner = await self._survey.owner(None, fresh=True)
            if self.owner.kind is OwnerKind.NOBODY:
                await self._bring_up("the agent started")

    async def end(self) -> None:
        """With the agent: ours is stopped, anybody else's is left alone. A supervisor that never began has
        not recalled what was stopped by hand, and must not write over it."""
        if self._begun:
            await self._supervisor.stop()

    def woke(self, slept_s: float) -> None:
        """The machine slept. As at the end: a supervisor that never began has nothing to say."""
        if self._begun:
            self._supervisor.machine_woke(slept_s)

    async def gives_way(self) -> bool:
        """Somebody else serves now, and ours does not run: it is not fought over. True where it was so."""
        if not self.has_one or self.pid is not None:
            return False
        owner = await self._survey.owner(None)
        if not owner.runs or owner.kind is OwnerKind.STRANGER:
            return False
        await self._supervisor.stop()
        self._begun = False
        return True

    # --- what is asked for --------------------------------------------------------------------------------

    def refusal(self, action: str) -> str:
        """Why this is not for us to do, as far as is known now; nothing where it may be tried."""
        if self.has_one or (action == "start" and self.owner.runs):
            return ""
        if not self.owner.runs and action == "stop":
            return ""
        found = self.way(self.owner, action)
        if found.ours and not installation.installed():
            return "Ollama is not installed: https://ollama.com/download has it."
        return found.refusal and f"{found.refusal[0].upper()}{found.refusal[1:]}."

    async def by_hand(self, action: str) -> None:
        """Start, stop or restart it because a person says so; raises NotPossible."""
        stopped = self._store.load(RECORD) or {}
        if action == "stop":
            self._remember(True)
        elif stopped.get("stopped_by_hand"):
            self._remember(False)
        if self.has_one or (action == "start" and self._ours_was_stopped()):
            await self._child(action, f"{action} by hand")
            return
        owner = await self._survey.owner(self.pid, fresh=True)
        if owner.runs and action == "start":
            return
        if not owner.runs and action == "start" and stopped.get("kind"):
            owner = Owner(OwnerKind(str(stopped["kind"])), str(stopped.get("name", "")))
        if not owner.runs and action == "stop":
            return
        await self._go(owner, action, f"{action} by hand", reset=True)

    async def start(self, cause: str) -> None:
        """By a pass: breaker and backoff hold."""
        await self._bring_up(cause)

    async def through_owner(self, action: str, cause: str) -> None:
        """By a pass: `start` or `restart` what somebody else, or nobody, looks after."""
        owner = await self._survey.owner(self.pid, fresh=True)
        if owner.kind is not OwnerKind.OURS and not (action == "start" and owner.runs):
            await self._go(owner, action, cause)

    # --- doing --------------------------------------------------------------------------------------------

    async def _go(self, owner: Owner, action: str, cause: str, *, reset: bool = False) -> None:
        found = self.way(owner, action)
        if found.refusal:
            raise NotPossible(found.refusal)
        runners = await asyncio.to_thread(self._survey.runners, owner.pid) if owner.pid else ()
        for command in found.commands:
            await _run(command)
        if found.end is not None:
            await terminate.terminate(found.end, self._config.supervision.stop_s)
        if action != "start":
            left = set(runners) & set(await asyncio.to_thread(self._survey.runners, None))
            await server_process.end_runners(tuple(left))
        if found.ours:
            await self._bring_up(cause, reset=reset)

    async def _child(self, action: str, cause: str) -> None:
        match action:
            case "start":
                await self._bring_up(cause, reset=True)
            case "stop":
                await self._supervisor.stop_child(OLLAMA, cause)
            case "restart":
                await self._supervisor.restart_child(OLLAMA, cause, reset=True)

    async def _bring_up(self, cause: str, *, reset: bool = False) -> None:
        """The first start also recalls breaker and backoff, and adopts what an earlier agent left."""
        if not self._begun:
            self._begun = True
            await self._supervisor.start()
            if not reset and not self._ours_was_stopped():
                return
        await self._supervisor.start_child(OLLAMA, cause, reset=reset)

    def _ours_was_stopped(self) -> bool:
        return bool((self._store.load(OLLAMA) or {}).get("stopped_by_hand"))

    def _remember(self, stopped: bool) -> None:
        owner = self.owner if stopped and self.owner.runs else Owner()
        kind = str(owner.kind) if owner.kind not in (OwnerKind.NOBODY, OwnerKind.OURS) else ""
        with contextlib.suppress(OSError):
            self._store.save(RECORD, {"stopped_by_hand": stopped, "kind": kind, "name": owner.name})

    async def _guard(self) -> None:
        """Before each launch: LaunchError where somebody else serves, or will, or memory is short."""
        if why := await self._why_not():
            raise LaunchError(why, child=OLLAMA)

    async def _why_not(self) -> str:
        owner = await self._survey.taken_by()
        if owner is not None:
            return f"port {self._where.port} is taken: it belongs to {owner}"
        if await self._survey.menu_bar_app() is not None:
            return APP_RUNS
        room = await asyncio.to_thread(self._look)
        if room.shortage:  # R6.3: more restarts would only strand more
            return room.message
        return "" if await asyncio.to_thread(installation.installed) else "Ollama is not installed any more"


async def _run(command: tuple[str, ...]) -> None:
    """Raises NotPossible, with the last line of what it said."""
    done = await run_async(*command, timeout_s=COMMAND_WITHIN_S)
    if done.exit_code != 0:
        said = done.text.strip().splitlines()
        raise NotPossible(f"`{' '.join(command)}` failed: {said[-1] if said else done.exit_code}")
