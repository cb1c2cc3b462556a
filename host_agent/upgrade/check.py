"""Try the installed program before it replaces the running agent: `vestal agent --check`.

The check imports every module of the agent, reads the settings, and checks that no foreign program holds a
configured port, so that a broken update is refused and the old agent keeps running.
"""

import contextlib
import importlib
import json
import pkgutil
from collections.abc import Mapping

import host_agent
import vestal
from host_agent.errors import UpgradeRefused
from host_agent.upgrade import installed
from host_agent.upgrade.request_file import UpgradeRequest
from vestal.config import Config
from vestal.platform.commands import run_async

CHECK = ("-m", "host_agent.cli.main", "agent", "--check")
TIMEOUT_S = 60.0
NEED_AN_EXTRA = frozenset({"vestal.tracing.tracer"})
"""Modules that import packages which `make up` does not install. They are used only where a setting asks."""


def import_all() -> None:
    """Import every module of the agent. Raises any exception that an import raises.

    A module that needs an optional package is skipped if the package is missing.
    """
    for package in (vestal, host_agent):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            may_be_missing = (ModuleNotFoundError,) if module.name in NEED_AN_EXTRA else ()
            with contextlib.suppress(*may_be_missing):
                importlib.import_module(module.name)


def report(config: Config) -> str:
    """Return what `vestal agent --check` prints: one line of JSON with the digest of each part's code and
    settings, by the part's name.
    """
    return json.dumps(installed.of_parts(config))


async def run(request: UpgradeRequest) -> Mapping[str, str]:
    """Run `vestal agent --check` with the Python and environment of `request`. Return the digests that it
    prints, by the names of Vestal's parts.

    Raises UpgradeRefused, with the last line that the check printed, if it fails or prints no digests.
    """
    done = await run_async(request.executable, *CHECK, timeout_s=TIMEOUT_S, env=request.environment)
    lines = [line for line in done.text.splitlines() if line.strip()]
    last = lines[-1] if lines else "it wrote nothing"
    if done.exit_code != 0:
        why = last.removeprefix("vestal: ").rstrip(".")
        raise UpgradeRefused(f"The new agent cannot start, so the old one goes on: {why}.")
    try:
        return {str(part): str(digest) for part, digest in json.loads(last).items()}
    except (ValueError, AttributeError):
        raise UpgradeRefused(f"The check of the new agent gave no digests: {last}") from None
