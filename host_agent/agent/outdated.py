"""Find the processes of this home whose code or settings are older than the installed ones.

Each process was started with a digest of its code and settings. The digest is in the environment of the
process or, for the agent, in a file (`running_settings`), so that no request is needed.
"""

from host_agent.agent import running_settings, single_instance
from host_agent.installed import comparison, digests
from host_agent.upgrade import installed
from vestal.config import Config, Home
from vestal.supervision import read_pid_file

SERVICES = ("watchdog", "mlx_server", "orchestrator", "nightly")
REMEDY = "`vestal up` replaces it; no request is lost meanwhile."


def parts(config: Config) -> dict[str, str]:
    """Return the running parts of Vestal whose code or settings differ from the installed ones: a dict from
    the part's name to the reason in words.
    """
    return comparison.outdated(_running(config.home), installed.of_parts(config))


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
    if single_instance.running(home) is not None:
        started_with = running_settings.read(home)
        has_code = started_with is not None and started_with.has_code
        found[installed.AGENT] = started_with.digest if started_with and has_code else None
    for part in SERVICES:
        identity = read_pid_file(home.run / f"{part}.json")
        if identity is not None and identity.alive():
            found[part] = installed.started_with(identity.pid)
    return found
