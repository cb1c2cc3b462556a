"""`GET /doctor` and `GET /clients`. Each runs a command in its own process, so that the agent's memory stays
small.
"""
