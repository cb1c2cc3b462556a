"""`/gateway/...` and `/orchestrator/...`: a proxy that gives the status page other services under its own
origin.
"""
