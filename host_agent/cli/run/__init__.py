"""Commands that start, stop and heal: up, down, recover, agent, server."""
