"""`/gateway/...` and `/orchestrator/...`: a proxy, through which the status page reaches these services under
its own origin.
"""
