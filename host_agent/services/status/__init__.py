"""The rows of GET /status from one look at the machine, the last failure of each service, and the verdict."""
