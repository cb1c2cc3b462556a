"""One upgrade at a time: the agent replaces itself if it is out of date, and then each outdated process that
it supervises.

The agent passes the report of an upgrade to the program that replaces it, which finishes the upgrade.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from host_agent.errors import UpgradeRefused
from host_agent.installed import comparison
from host_agent.journal import Journal
from host_agent.services import MLX_SERVER, ORCHESTRATOR
from host_agent.services.mlx.service import PROGRAM_CHANGED, MlxService
from host_agent.upgrade import check, installed, leftovers, request_file
from host_agent.upgrade.installed import AGENT, WATCHDOG
from host_agent.watchdog.child import AgentRestarter, AgentWatchdog
from vestal.config import Config
from vestal.supervision import UP, Event, HandoverRefused, SupervisionError, Supervisor, WaitTimeout

log = logging.getLogger("vestal")

RUNNING = frozenset({"checking", "replacing_agent", "replacing_services"})
ADOPTION_TIMEOUT_S = 30.0


class Upgrades:
    """Runs upgrades. The event `agent_is_to_be_replaced` is set when the agent has to replace itself.
    `request` then holds the Python and the environment of the new agent.

    The parameter `report` is the report of an upgrade that this program has to finish, because the agent that
    it replaced began it; empty if there is none.
    """

    def __init__(
        self,
        config: Config,
        supervisor: Supervisor,
        watchdog: AgentWatchdog,
        mlx: MlxService,
        journal: Journal,
        restarter: AgentRestarter,
        report: Mapping[str, Any],
    ) -> None:
        self._config, self._supervisor, self._watchdog, self._mlx = config, supervisor, watchdog, mlx
        self._journal, self._restarter = journal, restarter
        self._started_with = installed.of_agent(config)
        self._report: dict[str, Any] = {"state": "idle", "steps": [], "why": "", **report}
        self._task: asyncio.Task[None] | None = None
        self._gateway_task: asyncio.Task[None] | None = None
        self.request = request_file.own()
        self.agent_is_to_be_replaced = asyncio.Event()

    @property
    def report(self) -> dict[str, Any]:
        """Return the report of the upgrade that runs or ran last. Its `state` is "idle" (there was none),
        "checking", "replacing_agent", "replacing_services", "done", or "refused", which also means that a
        step has failed. `why` is the reason for "refused", else "". `steps` is a list of dictionaries: `part`
        names a part of Vestal, such as "mlx_server", and `text` says what is done with that part.
        """
        return dict(self._report)

    def as_json(self) -> dict[str, Any]:
        """Return, as a dictionary for JSON, the report of the upgrade that runs or ran last, with one more
        field, `runs`: the result of `runs()`.
        """
        return {**self._report, "runs": self.runs()}

    def runs(self) -> dict[str, str | None]:
        """Return the digest of code and settings with which each running process was started, by the name of
        its part of Vestal: the agent, its watchdog, and the children of its supervisor. A digest is None if
        the process has none or its environment cannot be read.
        """
        pids = {name: status.process_pid for name, status in self._supervisor.status().items()}
        pids[WATCHDOG] = self._watchdog.pid
        running = {name: installed.started_with(pid) for name, pid in pids.items() if pid is not None}
        return {AGENT: self._started_with, **running}

    def begin(self) -> bool:
        """Begin an upgrade, or join the one that is under way. Return whether one was begun."""
        if self._report["state"] in RUNNING:
            return False
        self._report = {"state": "checking", "steps": [], "why": ""}
        self._task = asyncio.create_task(self._run(), name="upgrade")
        return True

    def go_on(self) -> None:
        """Finish the upgrade in which this agent replaced an earlier one. Do nothing if there was none.

        If the new program could not be executed, the agent that was to be replaced runs again and calls this
        method, which then only records the failure in the journal. The failure could not be recorded at once,
        because the agent closes its journal before it tries to execute the new program.
        """
        if self._report["state"] == "replacing_agent":
            self._note(AGENT, "replaced", event="agent_replaced")
            self._task = asyncio.create_task(self._finish(), name="upgrade")
        elif self._report["state"] == "refused":
            self._journal.record(AGENT, "upgrade_refused", self._report["why"])

    def on_gateway_event(self, event: Event) -> None:
        """Replace the gateway if `event` says that engines started from now on do not fit the running
        gateway, because the installed program has changed. Ignore any other event. Do nothing during an
        upgrade, which replaces the gateway too.
        """
        is_busy = self._gateway_task is not None and not self._gateway_task.done()
        if event.event == PROGRAM_CHANGED and self._report["state"] not in RUNNING and not is_busy:
            self._gateway_task = asyncio.create_task(self._replace_outdated_gateway(), name="new gateway")

    async def stop(self) -> None:
        """Cancel the upgrade that is under way."""
        tasks = [task for task in (self._task, self._gateway_task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the steps of an upgrade ----------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            request = request_file.take(self._config.home)
            if self._restarter is AgentRestarter.SERVICE_MANAGER:
                request = request_file.own()  # it restarts the agent with the environment of its job
            digests = await check.run(request)
            why = comparison.why_outdated(self._started_with, digests[AGENT])
        except UpgradeRefused as error:
            self._refuse(error)
        except Exception as error:  # nobody awaits this task
            log.exception("the upgrade failed")
            self._refuse(UpgradeRefused(f"The upgrade failed: {error!r}."))
        else:
            if not why:
                await self._finish()
                return
            self.request = request
            self._report["state"] = "replacing_agent"
            self._note(AGENT, f"{why}; it is replaced, and its services go on", event="agent_outdated")
            self.agent_is_to_be_replaced.set()

    async def _finish(self) -> None:
        """Finish the upgrade once the agent is up to date: stop services that the settings no longer include,
        and replace each process that is out of date. Set the report's state to "done", or to "refused" with
        the reason if a step fails.
        """
        self._report["state"] = "replacing_services"
        if self._gateway_task is not None:  # the gateway is replaced once, not twice at a time
            await asyncio.wait({self._gateway_task})
        try:
            await self._replace_services()
        except (UpgradeRefused, SupervisionError) as error:
            self._refuse(error)
        except Exception as error:  # nobody awaits this task
            log.exception("the upgrade failed")
            self._refuse(UpgradeRefused(f"The upgrade failed: {error!r}."))
        else:
            self._report["state"] = "done"

    async def _replace_services(self) -> None:
        for line in await leftovers.stop_unwanted(self._config, self._supervisor):
            self._note(ORCHESTRATOR, line, event="service_not_wanted")
        wanted = await asyncio.to_thread(installed.of_parts, self._config)
        for part, why in comparison.outdated(await asyncio.to_thread(self.runs), wanted).items():
            if part == WATCHDOG:
                await self._watchdog.replace(why)
            elif part == MLX_SERVER:
                await self._replace_gateway(why)
            elif part != AGENT:
                self._note(part, f"{why}; it is restarted", event="service_outdated")
                await self._supervisor.restart_child(part, why, reset=True)

    async def _replace_outdated_gateway(self) -> None:
        """Hand over to a new gateway if the installed program or settings differ from those of the running
        gateway. If they are the same, do nothing, because a new gateway would fare no better.

        The running gateway goes on if it cannot hand over, because its engine may still serve. It also goes
        on if the new gateway fails, which is recorded in the journal.
        """
        try:
            running = await asyncio.to_thread(self.runs)
            wanted = await asyncio.to_thread(installed.of_parts, self._config)
            if why := comparison.outdated(running, wanted).get(MLX_SERVER):
                await self._hand_over_gateway(why)
        except SupervisionError as error:
            self._journal.record(AGENT, "upgrade_refused", _as_sentence(error))
        except Exception as error:  # nobody awaits this task
            log.exception("the gateway could not be replaced")
            self._journal.record(AGENT, "upgrade_refused", f"The upgrade failed: {error!r}.")

    async def _replace_gateway(self, why: str) -> None:
        """Start a new gateway that takes over while the old one serves, or restart the old one if it cannot
        hand over. `why` is the reason in words for the report and the journal.
        """
        if await self._hand_over_gateway(why):
            return
        self._note(MLX_SERVER, f"{why}; it finishes its requests and is restarted", event="gateway_outdated")
        await self._supervisor.restart_child(MLX_SERVER, why, reset=True)

    async def _hand_over_gateway(self, why: str) -> bool:
        """Start a new gateway that takes over while the old one serves. Return False, and do nothing, if the
        old one cannot hand over. `why` is the reason in words for the report and the journal.
        """
        with contextlib.suppress(WaitTimeout):  # an agent that has just adopted it knows nothing of it yet
            await self._supervisor.wait_for(MLX_SERVER, UP, ADOPTION_TIMEOUT_S)
        status = self._supervisor.status()[MLX_SERVER]
        if not await self._mlx.can_hand_over(status):
            return False
        requests = self._mlx.requests or 0
        go_on = f" ({requests} request{'' if requests == 1 else 's'} go on)" if requests else ""
        self._note(MLX_SERVER, f"{why}; another is started while it serves{go_on}", event="gateway_outdated")
        await self._supervisor.hand_over_child(MLX_SERVER)
        self._note(MLX_SERVER, "replaced", event="gateway_replaced")
        return True

    def _note(self, part: str, text: str, *, event: str) -> None:
        self._report["steps"].append({"part": part, "text": text})
        self._journal.record(part, event, text)

    def _refuse(self, error: UpgradeRefused | SupervisionError) -> None:
        why = _as_sentence(error)
        self._report.update(state="refused", why=why)
        self._journal.record(AGENT, "upgrade_refused", why)


def _as_sentence(error: UpgradeRefused | SupervisionError) -> str:
    why = str(error)
    if isinstance(error, HandoverRefused):
        return f"{why[0].upper()}{why[1:].rstrip('.')}. The old one goes on."
    return why
