"""A small process that starts the agent again when it has died, if no service manager does.

`python -m host_agent.watchdog` is that process; `restart_plan` decides when it acts, `socket_store` keeps the
gateway's sockets while no agent lives, and with `child` the agent starts and stops the watchdog.
"""
