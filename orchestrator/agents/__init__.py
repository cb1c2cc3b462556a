"""Define the agents that work on tasks: their roles, prompts, models and knowledge folders."""
