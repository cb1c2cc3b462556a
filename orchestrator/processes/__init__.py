"""The entry points of the containers: the API service, the nightly job, the worker and the health check."""
