"""Ollama: the agent finds and probes its server, and starts one if nobody else does. If the server has an
owner, a program or person that starts and restarts it, such as Homebrew, the agent controls the server
through this owner, if it can.

`service` is what the rest of the agent uses, and `controller` starts and stops the server. `discovery`
gathers evidence about the server's owner, and `ownership` decides from the evidence who the owner is;
`control_plan` says how this owner starts and stops the server. `probe` sends requests to the server, and
`answers` judges its replies. If no reply comes, `runners` reads what the server's runners do, the processes
that hold its models, and `silence` judges whether the server is busy or hangs.
"""

from host_agent.services.ollama.installation import installed
from host_agent.services.ollama.service import OllamaService

__all__ = ["OllamaService", "installed"]
