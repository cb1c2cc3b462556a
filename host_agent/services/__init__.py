"""What the agent looks after: MLX server, Ollama, Docker engine and containers, orchestrator."""

AGENT = "agent"
MLX_SERVER = "mlx_server"
MLX_ENGINE = "mlx_engine"
OLLAMA = "ollama"
DOCKER = "docker"
ORCHESTRATOR = "orchestrator"
NIGHTLY = "nightly"

NAMES = (AGENT, MLX_SERVER, MLX_ENGINE, OLLAMA, DOCKER, ORCHESTRATOR, NIGHTLY)
IN_CONTAINERS = (ORCHESTRATOR, NIGHTLY)
