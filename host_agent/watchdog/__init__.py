"""A small process that starts the agent again when it has died, if no service manager does.

`python -m host_agent.watchdog` is that process; `restart_plan` decides when it acts, and with `child` the
agent starts and stops it.
"""
