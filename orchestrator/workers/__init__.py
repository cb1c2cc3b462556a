"""Let several workers share one Postgres: detect which workers are alive, and take over the tasks of dead
workers.
"""
