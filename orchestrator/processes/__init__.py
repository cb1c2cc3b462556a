"""Run the programs of the containers: service, nightly, worker, health check."""
