"""Looks for who runs Ollama here: gathers the evidence that `ownership` judges, and the runners."""

import asyncio
import sys
import time
from pathlib import Path

from host_agent.service_manager import unit_lookup
from host_agent.service_manager.unit_lookup import Job
from host_agent.services.ollama import classify, installation
from host_agent.services.ollama.installation import Address
from host_agent.services.ollama.ownership import (
    BREW_LABELS,
    BREW_UNIT,
    Evidence,
    Owner,
    about_ollama,
    owner_of,
)
from vestal.config import Config
from vestal.platform import ports
from vestal.platform.processes import process_lookup
from vestal.platform.processes.process_snapshot import ProcessSnapshot

FRESH_S = 30.0
UNIT = "ollama.service"


class Discovery:
    """Remembers its last finding for as long as the same process listens, and half a minute at most."""

    def __init__(self, config: Config, where: Address) -> None:
        self._home, self._where = str(config.home.root), where
        self._me = process_lookup.current_user()
        self._last: tuple[float, ProcessSnapshot | None, Owner] = (float("-inf"), None, Owner())

    async def owner(self, ours: int | None, fresh: bool = False) -> Owner:
        """Who looks after what listens; `ours` is the PID of our own child."""
        if not self._where.local:
            return owner_of(Evidence(address=self._where.url))
        if ours is not None:
            return owner_of(Evidence(ours=ours, holder=ProcessSnapshot(ours, name="ollama")))
        if not fresh and self._still_holds():
            return self._last[2]
        held = await asyncio.to_thread(ports.holder, self._where.port, self._where.host)
        if held is None and not installation.installed():
            return Owner()
        holder = process_lookup.snapshot(held.pid) if held and held.pid else None
        owner = owner_of(await self._evidence(holder, unseen=held is not None and holder is None))
        self._last = (time.monotonic(), holder, owner)
        return owner

    async def taken_by(self) -> Owner | None:
        """Who holds the port just now; None where it is free. Quick where it is: a restart waits for it."""
        held = await asyncio.to_thread(ports.holder, self._where.port, self._where.host)
        return None if held is None else await self.owner(None, fresh=True)

    def _still_holds(self) -> bool:
        """Whether the last finding may stand: to look for who holds a port costs much more."""
        at, holder, _ = self._last
        if holder is None or time.monotonic() - at > FRESH_S:
            return False
        now = process_lookup.snapshot(holder.pid)
        return now is not None and now.started_at == holder.started_at

    async def menu_bar_app(self) -> ProcessSnapshot | None:
        """The app, where it runs (macOS)."""
        if sys.platform != "darwin":
            return None
        found = await asyncio.to_thread(process_lookup.find_by_words, "Ollama.app/Contents/MacOS/")
        return next((process for process in found if classify.is_menu_bar_app(process)), None)

    async def orphans(self) -> tuple[ProcessSnapshot, ...]:
        """Runners whose server is gone."""
        return await asyncio.to_thread(_orphans)

    def runners(self, server: int | None) -> tuple[int, ...]:
        """The PIDs of the runners of one server, or of all where it is not known."""
        found = process_lookup.find_by_words("ollama", "llama-server")
        return tuple(p.pid for p in found if classify.is_runner(p) and server in (None, p.ppid))

    def is_mine(self, process: ProcessSnapshot) -> bool:
        """Whether it may be ended without root."""
        return process.user == self._me

    async def _evidence(self, holder: ProcessSnapshot | None, unseen: bool) -> Evidence:
        pid = holder.pid if holder else None
        return Evidence(
            me=self._me,
            home=self._home,
            holder=holder,
            held_unseen=unseen,
            above=process_lookup.ancestors(holder) if holder else (),
            jobs=about_ollama(await self._jobs(holder), pid),
            app=None if holder else await self.menu_bar_app(),
        )

    async def _jobs(self, holder: ProcessSnapshot | None) -> tuple[Job, ...]:
        found = list(await unit_lookup.launchd_jobs())
        asked = [unit_lookup.systemd_unit(unit, system=False) for unit in (UNIT, BREW_UNIT)]
        asked.append(unit_lookup.systemd_unit(UNIT, system=True))
        asked += [unit_lookup.launchd_system_job(label) for label in BREW_LABELS]
        inside = unit_lookup.unit_of(holder.pid) if holder else None
        if inside is not None and inside.name not in (UNIT, BREW_UNIT):
            asked.append(unit_lookup.systemd_unit(inside.name, inside.system))
        return tuple(found + [job for job in await asyncio.gather(*asked) if job])


def _orphans() -> tuple[ProcessSnapshot, ...]:
    found = {process.pid: process for process in process_lookup.find_by_words("ollama", "llama-server")}
    unknown = {process.ppid for process in found.values() if process.ppid > 1} - set(found)
    parents = map(process_lookup.snapshot, unknown)
    return classify.orphans((*found.values(), *(parent for parent in parents if parent)))


def agents_folder() -> str:
    """Where this user's launchd jobs are written."""
    return str(Path.home() / "Library" / "LaunchAgents")
