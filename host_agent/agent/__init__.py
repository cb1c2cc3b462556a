"""The agent process: `daemon` runs the agent, `components` builds its parts, `agent` starts and stops
them.
"""
