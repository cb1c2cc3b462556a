"""Commands that start, stop and recover: up, down, recover, agent, server."""
