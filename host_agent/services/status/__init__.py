"""The body of GET /status: the status of each service, its last failure, and the verdict on all of them."""
