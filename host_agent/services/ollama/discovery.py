"""Gather the evidence from which the module `ownership` judges who starts and restarts Ollama (its owner),
and find Ollama's runners, the processes that hold its models.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from host_agent.service_manager import unit_lookup
from host_agent.service_manager.unit_lookup import Job
from host_agent.services.ollama import classify, installation
from host_agent.services.ollama.classify import RunnerId
from host_agent.services.ollama.installation import Address
from host_agent.services.ollama.ownership import (
    BREW_LABELS,
    BREW_UNIT,
    Owner,
    OwnerKind,
    OwnershipEvidence,
    ollama_jobs,
    owner_of,
)
from vestal.config import Config
from vestal.platform import ports
from vestal.platform.processes import process_lookup
from vestal.platform.processes.process_snapshot import ProcessSnapshot

CACHE_S = 30.0
UNIT = "ollama.service"


class Discovery:
    """Finds the owner of Ollama: the program or person that starts and restarts it, such as Homebrew.

    `address` is where Ollama should answer. The owner is cached for at most CACHE_S seconds, and only while
    the process still runs that was found listening there.
    """

    def __init__(self, config: Config, address: Address) -> None:
        self._home, self._address = str(config.home.root), address
        self._me = process_lookup.current_user()
        self._allows_two = config.ollama.manage == "always"
        self._last: tuple[float, ProcessSnapshot | None, Owner] = (float("-inf"), None, Owner())
        self._known_runners: frozenset[RunnerId] = frozenset()

    async def owner(self, own_pid: int | None, fresh: bool = False) -> Owner:
        """Return the owner of Ollama: who starts and restarts it, such as the agent, Homebrew, or nobody.

        `own_pid` is the PID of the server that the agent itself started, None if it does not run. With
        `fresh`, ignore the cached owner.
        """
        if not self._address.local:
            return owner_of(OwnershipEvidence(address=self._address.url))
        if own_pid is not None:
            return owner_of(
                OwnershipEvidence(own_pid=own_pid, holder=ProcessSnapshot(own_pid, name="ollama"))
            )
        if not fresh and self._last_is_valid():
            return self._last[2]
        port_holder = await asyncio.to_thread(ports.holder, self._address.port, self._address.host)
        if port_holder is None and not installation.installed():
            return Owner()
        holder = process_lookup.snapshot(port_holder.pid) if port_holder and port_holder.pid else None
        is_hidden = port_holder is not None and holder is None
        owner = owner_of(await self._evidence(holder, is_hidden))
        self._last = (time.monotonic(), holder, owner)
        return owner

    async def port_holder(self) -> Owner | None:
        """Return who listens on Ollama's port, be it Ollama or another program; None if nothing listens
        there.

        A free port is recognized quickly, because a restart waits for this.
        """
        holder = await asyncio.to_thread(ports.holder, self._address.port, self._address.host)
        return None if holder is None else await self.owner(None, fresh=True)

    async def server_elsewhere(self) -> Owner | None:
        """Return the Ollama server that this user runs at another address than the configured one. Return
        None if there is none, or if the settings allow two servers (`ollama.manage` is `always`).
        """
        server, address = await self._elsewhere()
        owner = owner_of(OwnershipEvidence(elsewhere=server, elsewhere_address=address))
        return owner if owner.kind is OwnerKind.ELSEWHERE else None

    async def menu_bar_app(self) -> ProcessSnapshot | None:
        """Return the process of Ollama's menu-bar app (macOS); None if it does not run."""
        if sys.platform != "darwin":
            return None
        found = await asyncio.to_thread(process_lookup.find_by_words, "Ollama.app/Contents/MacOS/")
        return next((process for process in found if classify.is_menu_bar_app(process)), None)

    async def orphans(self) -> tuple[ProcessSnapshot, ...]:
        """Return the runners whose server has ended."""
        return await asyncio.to_thread(self._find_orphans)

    def runners(self, server: int | None) -> tuple[ProcessSnapshot, ...]:
        """Return the runners of the server whose PID is `server`, or of all servers if `server` is None."""
        found = self._servers_and_runners()
        return tuple(p for p in found if classify.is_runner(p) and server in (None, p.ppid))

    def is_mine(self, process: ProcessSnapshot) -> bool:
        """Return whether the process is this user's, and so can be terminated without root."""
        return process.user == self._me

    def _servers_and_runners(self) -> tuple[ProcessSnapshot, ...]:
        """Return every process that may be a server or a runner, and remember which runners have a server:
        once their server has ended, nothing else may show that a llama-server is Ollama's.
        """
        found = process_lookup.find_by_words("ollama", "llama-server")
        self._known_runners = classify.runners_of_servers(found, self._known_runners)
        return found

    def _find_orphans(self) -> tuple[ProcessSnapshot, ...]:
        found = {process.pid: process for process in self._servers_and_runners()}
        unknown = {process.ppid for process in found.values() if process.ppid > 1} - set(found)
        parents = [parent for parent in map(process_lookup.snapshot, unknown) if parent]
        return classify.orphaned_runners((*found.values(), *parents), self._known_runners)

    def _last_is_valid(self) -> bool:
        """Return whether the cached owner is still valid: it was found at most CACHE_S ago, and the process
        that listened on Ollama's port when it was found still runs. To check this is cheaper than to find out
        which process listens now.
        """
        found_at, holder, _ = self._last
        if holder is None or time.monotonic() - found_at > CACHE_S:
            return False
        now = process_lookup.snapshot(holder.pid)
        return now is not None and now.started_at == holder.started_at

    async def _evidence(self, holder: ProcessSnapshot | None, is_hidden: bool) -> OwnershipEvidence:
        pid = holder.pid if holder else None
        elsewhere, address = (None, "") if holder or is_hidden else await self._elsewhere()
        return OwnershipEvidence(
            me=self._me,
            home=self._home,
            holder=holder,
            is_holder_hidden=is_hidden,
            ancestors=process_lookup.ancestors(holder) if holder else (),
            jobs=ollama_jobs(await self._jobs(holder), pid),
            app=None if holder else await self.menu_bar_app(),
            elsewhere=elsewhere,
            elsewhere_address=address,
        )

    async def _elsewhere(self) -> tuple[ProcessSnapshot | None, str]:
        """Return an `ollama serve` of this user that no other Vestal home manages, and the address at which
        it listens, "" if it does not listen. Return (None, "") if there is none or the settings allow two
        servers.
        """
        if self._allows_two:
            return None, ""
        server = await asyncio.to_thread(self._find_elsewhere)
        return server, next(iter(ports.listening_at(server.pid)), "") if server else ""

    def _find_elsewhere(self) -> ProcessSnapshot | None:
        home = os.environ.get("HOME", "")
        for process in process_lookup.find_by_words("ollama"):
            of_another_vestal = process.home and process.home != self._home
            if not classify.is_server(process) or process.user != self._me or of_another_vestal:
                continue
            if not process_lookup.shares_network(process.pid):
                continue
            if process_lookup.variable(process.pid, "HOME") in ("", home):
                return process
        return None

    async def _jobs(self, holder: ProcessSnapshot | None) -> tuple[Job, ...]:
        found = list(await unit_lookup.launchd_jobs())
        lookups = [unit_lookup.systemd_unit(unit, system=False) for unit in (UNIT, BREW_UNIT)]
        lookups.append(unit_lookup.systemd_unit(UNIT, system=True))
        lookups += [unit_lookup.launchd_system_job(label) for label in BREW_LABELS]
        unit = unit_lookup.unit_of(holder.pid) if holder else None
        if unit is not None and unit.name not in (UNIT, BREW_UNIT):
            lookups.append(unit_lookup.systemd_unit(unit.name, unit.system))
        return tuple(found + [job for job in await asyncio.gather(*lookups) if job])


def agents_folder() -> str:
    """Return the folder of this user's launchd jobs."""
    return str(Path.home() / "Library" / "LaunchAgents")
