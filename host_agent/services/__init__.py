"""The services that the agent supervises or watches, one package for each, and their common modules.

`status_report` reports the state of all of them. `service_control` starts, stops or restarts one when a
person asks for it.
"""

AGENT = "agent"
MLX_SERVER = "mlx_server"
MLX_ENGINE = "mlx_engine"
OLLAMA = "ollama"
DOCKER = "docker"
ORCHESTRATOR = "orchestrator"
NIGHTLY = "nightly"

NAMES = (AGENT, MLX_SERVER, MLX_ENGINE, OLLAMA, DOCKER, ORCHESTRATOR, NIGHTLY)
IN_CONTAINERS = (ORCHESTRATOR, NIGHTLY)
