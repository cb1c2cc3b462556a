"""The agent's HTTP side on port 9099 (design §3)."""
