"""What this installation's units are made from: the settings of this shell, its Python and this checkout."""

import os
import pwd

from host_agent.cli.install import environment
from host_agent.service_manager import service_manager
from host_agent.service_manager.unit import JobSettings
from host_agent.services.child_environment import REPO, common
from host_agent.services.find_program import EXTRA_FOLDERS
from host_agent.services.mlx.service import SIX_STAGES_S
from vestal.config import Config

STOP_AT_LEAST_S, SPARE_S = 120, 30


def told(config: Config, daemon: bool) -> tuple[JobSettings, list[str]]:
    """What the units are made from, and the names of the secrets that are left out."""
    settings, secrets = environment.settings(os.environ)
    variables = {"PATH": environment.search_path(os.environ, EXTRA_FOLDERS), **settings}
    if daemon:  # the system's domain gives none
        user = pwd.getpwuid(os.getuid())
        variables |= {"HOME": os.environ.get("HOME") or user.pw_dir, "USER": user.pw_name}
    units = JobSettings(
        environment={**variables, **common(config)},
        checkout=REPO,
        python=service_manager.python(),
        stop_within_s=stop_within_s(config),
        recover_each_s=int(config.agent.recovery_interval_s),
    )
    return units, secrets


def stop_within_s(config: Config) -> int:
    """Longer than the ordered stop: drain, six stages, orchestrators."""
    ordered_s = config.mlx.drain_s + SIX_STAGES_S + 4 * config.supervision.stop_s
    return max(STOP_AT_LEAST_S, int(ordered_s) + SPARE_S)
