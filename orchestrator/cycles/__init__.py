"""Plan and record the orchestrator's cycles: periodic rounds that check the backends, count the unfinished
tasks, update the agents' knowledge and record what was done. Also decide when the nightly run is due.
"""
