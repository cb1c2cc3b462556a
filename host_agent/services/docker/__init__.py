"""Docker: the engine's API, compose, the state of containers, and why a container died."""
