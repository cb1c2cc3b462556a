"""The Docker engine and this home's containers: the engine's API, compose, and why a container died."""
