"""The programs that run in the containers: service, nightly, worker, health check."""
