"""The services that the agent supervises or watches, a package for each, and what these share.

`status_report` says how all of them are, `service_control` starts and stops one for a person.
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
