"""`/gateway/...` and `/orchestrator/...`: what the page uses of other services, under its own origin."""
