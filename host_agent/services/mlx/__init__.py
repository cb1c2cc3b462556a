"""The MLX server: its gateway is a child of the agent, its engine a child of the gateway."""
