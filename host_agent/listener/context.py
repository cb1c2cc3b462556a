"""The parts of the agent that the listener's routes read and act on."""

from dataclasses import dataclass

from host_agent.history.history import History
from host_agent.incidents import Incidents
from host_agent.journal import Journal
from host_agent.listener.proxy.routes import Upstreams
from host_agent.listener.sessions import Sessions
from host_agent.recovery.passes import Passes
from host_agent.recovery.restart_budget import RestartBudget
from host_agent.services.service_control import ServiceControl
from host_agent.services.status_report import StatusReport
from host_agent.upgrade.upgrades import Upgrades


@dataclass(kw_only=True)
class ListenerContext:
    """The objects that all routes share.

    `next_pass_at` is when the next recovery pass begins, in seconds of the monotonic clock. The agent's
    schedule sets it.
    """

    status_report: StatusReport
    passes: Passes
    restart_budget: RestartBudget
    journal: Journal
    service_control: ServiceControl
    sessions: Sessions
    upgrades: Upgrades
    upstreams: Upstreams
    incidents: Incidents
    history: History
    next_pass_at: float = 0.0
