"""Find the processes of this home whose code or settings are older than the installed ones.

Each process was started with a digest of its code and settings. The digest is in the environment of the
process or, for the agent, in a file (`running_settings`), so that no request is needed.
"""

from pathlib import Path

import psutil

from host_agent.agent import running_settings, single_instance
from host_agent.installed import comparison, digests
from host_agent.upgrade import installed
from vestal.config import Config, Home
from vestal.supervision import read_pid_file

SERVICES = ("watchdog", "mlx_server", "orchestrator", "nightly")
MOVED = "uses the home folder's former place"
REMEDY = "`vestal up` replaces it; no request is lost meanwhile."


def parts(config: Config) -> dict[str, str]:
    """Return the running parts of Vestal whose code or settings differ from the installed ones, or which were
    started before this home folder was moved here: a dict from the part's name to the reason in words.
    """
    moved = [part for part, pid in _pids(config.home).items() if _uses_another_home(pid, config.home)]
    found = comparison.outdated(_running(config.home), installed.of_parts(config))
    return found | dict.fromkeys(moved, MOVED)


def parts_with_older_code(config: Config) -> list[str]:
    """Return the names of Vestal's running processes, such as `agent` or `mlx_server`, whose code differs
    from the installed code. A process that was started without a digest counts as different. A process whose
    settings alone differ is not returned.
    """
    wanted = installed.of_parts(config)
    running = {part: digest for part, digest in _running(config.home).items() if part in wanted}
    return [
        part
        for part, digest in running.items()
        if digests.code_of(digest or "") != digests.code_of(wanted[part])
    ]


def _running(home: Home) -> dict[str, str | None]:
    """Return, for each running part, the digest of code and settings that it was started with; None if it has
    no digest.
    """
    found: dict[str, str | None] = {}
    for part, pid in _pids(home).items():
        if part == installed.AGENT:
            started_with = running_settings.read(home)
            has_code = started_with is not None and started_with.has_code
            found[part] = started_with.digest if started_with and has_code else None
        else:
            found[part] = installed.started_with(pid)
    return found


def _pids(home: Home) -> dict[str, int]:
    """Return the PID of each running part, by the part's name."""
    identities = {part: read_pid_file(home.run / f"{part}.json") for part in SERVICES}
    identities = {installed.AGENT: single_instance.running(home), **identities}
    return {part: each.pid for part, each in identities.items() if each is not None and each.alive()}


def _uses_another_home(pid: int, home: Home) -> bool:
    """Return whether a process whose PID file is in `home` has another home folder in its environment. This
    is so if the folder was moved while the process ran; the process still writes to the old place.
    """
    try:
        named = Path(psutil.Process(pid).environ().get("VESTAL_HOME") or home.default_root)
    except psutil.Error:
        return False
    if not named.is_absolute() or named == home.root:
        return False
    try:
        return not named.samefile(home.root)
    except OSError:
        return True
