"""The section `agent`: the host agent and its listener."""

from vestal.config.settings.field_types import Address, Port, Seconds, Section


class AgentSection(Section):
    """The host agent.

    `bind`                  addresses to listen on besides loopback and the Docker bridge
    `recovery_interval_s`   how often a recovery pass runs
    `monitor_interval_s`    how often the MLX server is asked whether it answers
    """

    port: Port = 9099
    bind: list[Address] = []
    recovery_interval_s: Seconds = 300.0
    monitor_interval_s: Seconds = 30.0
