"""The agent's HTTP server on port 9099: status, recovery, service control, journal and the status page."""
