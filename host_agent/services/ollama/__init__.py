"""Ollama: the agent finds and probes it, starts it if nobody else does, or else controls it through its
owner.

`service` is what the rest of the agent uses, `controller` starts and stops. `discovery` gathers evidence
about the server's owner, and `ownership` decides from the evidence who the owner is; `control_plan` says how
this owner starts and stops the server. `probe` sends requests to the server, and `answers` judges its
replies. If no reply comes, `runners` reads what its runners do, and `silence` judges whether the server is
busy or hangs.
"""

from host_agent.services.ollama.installation import installed
from host_agent.services.ollama.service import OllamaService

__all__ = ["OllamaService", "installed"]
