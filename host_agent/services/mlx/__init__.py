"""The MLX server as a child of the agent."""
