"""Ollama: the agent finds and probes it, starts it if nobody else does, or else controls it through its
owner.

`service` is what the rest of the agent uses, `controller` starts and stops. `discovery` looks for the
server's owner and `ownership` judges what it found; `control_plan` says how that owner starts and stops it.
`probe` asks the server, and `answers` judges what it says. If it says nothing, `runners` looks at its
runners, and `silence` judges whether it is busy or hangs.
"""

from host_agent.services.ollama.installation import installed
from host_agent.services.ollama.service import OllamaService

__all__ = ["OllamaService", "installed"]
