"""Start, stop and restart Ollama. A server that the agent itself starts is run by a supervisor in the agent.
Any other is controlled through its owner: the program that starts and restarts it, such as Homebrew.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable

from host_agent.errors import NotPossible
from host_agent.service_manager import launchctl_output, unit_lookup
from host_agent.service_manager.launchctl_output import LaunchctlOutcome
from host_agent.services import OLLAMA, terminate
from host_agent.services.find_process import find_supervised
from host_agent.services.ollama import control_plan, installation, server_process
from host_agent.services.ollama.control_plan import ControlPlan, Tools
from host_agent.services.ollama.discovery import Discovery, agents_folder
from host_agent.services.ollama.installation import Address
from host_agent.services.ollama.ownership import Owner, OwnerKind, owner_to_start
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
    has_ended,
    read_pid_file,
)
from vestal.supervision.processes.identity import is_of_this_boot

RECORD = "ollama.owner"
COMMAND_TIMEOUT_S = 90.0
UNDER_WAY = (LaunchctlOutcome.ALREADY, LaunchctlOutcome.STOPPING)
APP_RUNS = "the menu-bar app Ollama.app runs, and keeps a server of its own"


class OllamaController:
    """Starts, stops and restarts Ollama, and has the supervisor of the agent's own `ollama serve`. A stop by
    hand lasts until a start by hand. `owner` says which program or person, such as Homebrew, was last found
    to start and restart Ollama; before the first search, its kind is NOBODY.

    `discovery` finds this owner. `store` keeps, also after the agent's end, the supervisor's state and the
    stops by hand. `on_event` gets the supervisor's events. `ready` and `health` probe the agent's own server,
    and `headroom` says before each launch of this server whether the machine has the memory for it.
    """

    def __init__(
        self,
        config: Config,
        address: Address,
        discovery: Discovery,
        store: StateStore,
        on_event: Callable[[Event], None],
        *,
        ready: Probe,
        health: Probe,
        headroom: Callable[[], Headroom] = model_servers.current_headroom,
    ) -> None:
        self._config, self._address, self._discovery, self._store = config, address, discovery, store
        self._headroom = headroom
        self.may_act = config.ollama.manage in ("auto", "always") and address.local
        self._spec = server_process.spec(config, address, ready, health, self._guard_launch)
        # Ollama has its own supervisor: the agent's others would start it even if it has another owner.
        self._supervisor = Supervisor((self._spec,), on_event=on_event, store=store, name=OLLAMA)
        self._supervisor_started = False
        self.owner = Owner()

    # --- state ----------------------------------------------------------------------------------------------

    def status(self) -> ChildStatus:
        """Return the supervisor's status of the agent's own server."""
        return self._supervisor.status()[OLLAMA]

    @property
    def pid(self) -> int | None:
        """Return the PID of the `ollama serve` that the agent started or adopted; None if none runs."""
        return self.status().process_pid

    @property
    def has_child(self) -> bool:
        """Return whether the supervisor controls Ollama: it runs a server, will start one, or gave up."""
        return self._supervisor_started and self.status().state is not State.STOPPED

    @property
    def stopped_by_hand(self) -> bool:
        """Return whether a person stopped Ollama and nobody has started it since."""
        return any((self._store.load(name) or {}).get("stopped_by_hand") for name in (OLLAMA, RECORD))

    def control_plan(self, owner: Owner, action: str) -> ControlPlan:
        """Return the plan to `start`, `stop` or `restart` the Ollama server for which `owner` is
        responsible.
        """
        tools = Tools(os.getuid(), unit_lookup.brew(), agents_folder(), self.may_act)
        return control_plan.make_plan(owner, action, tools)

    def instructions(self, owner: Owner) -> str:
        """Return instructions for people: how to start Ollama or, if it runs, how to restart it. They depend
        on `owner`, the program or person that starts and restarts Ollama. If Ollama does not run, nobody else
        starts it, and Vestal may start it, return instead that the next recovery pass starts it.
        """
        plan = self.control_plan(owner, "restart" if owner.runs else "start")
        if plan.start_own and not owner.runs:
            return "the next recovery pass starts it"
        return str(plan) if plan.refusal else f"to start it again: {plan}"

    def refusal(self, action: str) -> str:
        """Return why the agent may not carry out `action`, judged by the owner of Ollama that was found last;
        "" if the agent may try.
        """
        if self.has_child or action == ("start" if self.owner.runs else "stop"):
            return ""
        plan = self.control_plan(self.owner, action)
        if plan.start_own and not installation.installed():
            return "Ollama is not installed: https://ollama.com/download has it."
        return plan.refusal and f"{plan.refusal[0].upper()}{plan.refusal[1:]}."

    # --- with the agent -------------------------------------------------------------------------------------

    async def adopt_or_start(self) -> None:
        """Adopt the server that an earlier agent started. If there is none, start one, provided that Ollama
        is installed, has no other owner, and was not stopped by hand.
        """
        if not self.may_act:
            return
        identity = read_pid_file(self._spec.pid_file) if self._spec.pid_file else None
        if identity is not None and has_ended(identity.pid) and is_of_this_boot(identity):
            # Agent and server both died. The next start would kill the rest of the group: the runners.
            await server_process.terminate_runners(
                await asyncio.to_thread(server_process.runners_of_group, identity.pid)
            )
        if (identity is not None and identity.alive()) or await self._is_running_without_pid_file():
            await self._start_child("the agent started")
        elif not self.stopped_by_hand and installation.installed():
            self.owner = await self._discovery.owner(None, fresh=True)
            if self.owner.kind is OwnerKind.NOBODY:
                await self._start_child("the agent started")

    async def _is_running_without_pid_file(self) -> bool:
        """Return whether a server of an earlier agent runs, whose PID file was deleted or not written."""
        path = self._spec.pid_file
        return path is not None and await asyncio.to_thread(find_supervised, path) is not None

    async def detach(self) -> None:
        """Stop supervising the agent's own server without ending it, because the agent is about to replace
        itself, by execve, with a program that adopts the server.
        """
        if self._supervisor_started:
            await self._supervisor.detach()

    async def stop(self) -> None:
        """Stop the agent's own server, and leave any other server alone. A supervisor that was never started
        is not stopped, because it would save a state that it has not loaded.
        """
        if self._supervisor_started:
            await self._supervisor.stop()

    def machine_woke(self, slept_s: float) -> None:
        """Have the supervisor probe at once, because the machine has slept for `slept_s` seconds."""
        if self._supervisor_started:
            self._supervisor.machine_woke(slept_s)

    async def yield_to_other_server(self) -> bool:
        """Stop supervising the agent's own Ollama server if that server has ended and another Ollama server
        runs. Return True if the supervisor was stopped, else False.
        """
        if not self.has_child or self.pid is not None:
            return False
        owner = await self._discovery.owner(None)
        if owner.kind is OwnerKind.STRANGER or not (owner.runs or owner.kind is OwnerKind.ELSEWHERE):
            return False
        await self._supervisor.stop()
        self._supervisor_started = False
        return True

    # --- for a person ---------------------------------------------------------------------------------------

    async def manual_action(self, action: str) -> None:
        """Carry out `action` (`start`, `stop` or `restart`) because a person asks for it: through the program
        that starts and restarts Ollama, such as Homebrew, or directly if there is no such program. Raises
        NotPossible if the agent may not control Ollama, or a command fails.
        """
        stopped = self._store.load(RECORD) or {}
        if action == "stop":
            self._record_manual_stop(True)
        elif stopped.get("stopped_by_hand"):
            self._record_manual_stop(False)
        if self.has_child or (action == "start" and self._child_was_stopped_by_hand()):
            await self._control_child(action, f"{action} by hand")
            return
        owner = await self._discovery.owner(self.pid, fresh=True)
        if action == ("start" if owner.runs else "stop"):
            return
        if action == "start":
            owner = owner_to_start(owner, str(stopped.get("kind", "")), str(stopped.get("name", "")))
        await self._carry_out(owner, action, f"{action} by hand", reset=True)

    # --- for a recovery pass --------------------------------------------------------------------------------

    async def start(self, cause: str) -> None:
        """Start `ollama serve` as the agent's child, for the reason `cause`, as soon as the child's breaker
        and backoff allow. Wait neither for that nor until the server is ready. If the launch fails, nothing
        is raised.
        """
        await self._start_child(cause)

    async def control_through_owner(self, action: str, cause: str) -> None:
        """Do nothing if the agent's own server runs, or if `action` is `start` and any server runs. Otherwise
        carry out `action` (`start` or `restart`) through the program that starts and restarts Ollama, such as
        Homebrew. If there is none, end the server that runs, if any, and start the agent's own. `cause` is
        recorded as the reason. Raises NotPossible if the agent may not control Ollama, or a command fails.
        """
        owner = await self._discovery.owner(self.pid, fresh=True)
        if owner.kind is not OwnerKind.OURS and not (action == "start" and owner.runs):
            await self._carry_out(owner, action, cause)

    async def _carry_out(self, owner: Owner, action: str, cause: str, *, reset: bool = False) -> None:
        """Carry out `action` (`start`, `stop` or `restart`) as is right for `owner`, who starts and restarts
        Ollama, and terminate the runners that outlive their server. If that starts the agent's own server,
        `cause` is recorded as the reason, and with `reset` neither an open breaker nor a backoff delays the
        start. Raises NotPossible if the agent may not control Ollama, or a command fails.
        """
        plan = self.control_plan(owner, action)
        if plan.refusal:
            raise NotPossible(plan.refusal)
        runners = await self._runner_pids(owner.pid) if owner.pid else set()
        for command in plan.commands:
            await _run(command)
        if plan.terminate_pid is not None:
            await terminate.terminate_pid(plan.terminate_pid, self._config.supervision.stop_s)
        if action != "start":
            await server_process.terminate_runners(tuple(runners & await self._runner_pids(None)))
        if plan.start_own:
            await self._start_child(cause, reset=reset)

    async def _runner_pids(self, server: int | None) -> set[int]:
        return {runner.pid for runner in await asyncio.to_thread(self._discovery.runners, server)}

    async def _control_child(self, action: str, cause: str) -> None:
        match action:
            case "start":
                await self._start_child(cause, reset=True)
            case "stop":
                await self._supervisor.stop_child(OLLAMA, cause)
            case "restart":
                await self._supervisor.restart_child(OLLAMA, cause, reset=True)

    async def _start_child(self, cause: str, *, reset: bool = False) -> None:
        """Start the agent's own server and, first, its supervisor, which loads the breaker's and the
        backoff's state and adopts a server that an earlier agent started. With `reset`, neither an open
        breaker nor a backoff delays the start. `cause` is the reason to record.
        """
        if not self._supervisor_started:
            self._supervisor_started = True
            await self._supervisor.start()
            if not reset and not self._child_was_stopped_by_hand():
                return
        await self._supervisor.start_child(OLLAMA, cause, reset=reset)

    def _child_was_stopped_by_hand(self) -> bool:
        return bool((self._store.load(OLLAMA) or {}).get("stopped_by_hand"))

    def _record_manual_stop(self, stopped: bool) -> None:
        """Save whether a person stopped Ollama. If so, also save which program, if it was not the agent, ran
        Ollama, because a later start by hand uses the same program.
        """
        owner = self.owner if stopped and self.owner.runs else Owner()
        kind = str(owner.kind) if owner.kind not in (OwnerKind.NOBODY, OwnerKind.OURS) else ""
        with contextlib.suppress(OSError):
            self._store.save(RECORD, {"stopped_by_hand": stopped, "kind": kind, "name": owner.name})

    async def _guard_launch(self) -> None:
        """Raise LaunchError if another server runs or will run, memory is short, or Ollama is missing."""
        if obstacle := await self._launch_obstacle():
            raise LaunchError(obstacle, child=OLLAMA)

    async def _launch_obstacle(self) -> str:
        holder = await self._discovery.port_holder()
        if holder is not None:
            return f"port {self._address.port} is taken: it belongs to {holder}"
        if (elsewhere := await self._discovery.server_elsewhere()) is not None:
            return self.control_plan(elsewhere, "start").refusal
        if await self._discovery.menu_bar_app() is not None:
            return APP_RUNS
        headroom = await asyncio.to_thread(self._headroom)
        if headroom.shortage:  # each restart could leak more wired memory
            return headroom.message
        return "" if await asyncio.to_thread(installation.installed) else "Ollama is not installed any more"


async def _run(command: tuple[str, ...]) -> None:
    """Run a command that controls Ollama. Raises NotPossible, with its last line of output, if it fails."""
    done = await run_async(*command, timeout_s=COMMAND_TIMEOUT_S)
    # launchctl refuses to start a job that starts, and to stop one that stops.
    is_launchctl = command[0] == "launchctl"
    is_under_way = is_launchctl and launchctl_output.classify(done.exit_code, done.text) in UNDER_WAY
    if done.exit_code != 0 and not is_under_way:
        lines = done.text.strip().splitlines()
        raise NotPossible(f"`{' '.join(command)}` failed: {lines[-1] if lines else done.exit_code}")
