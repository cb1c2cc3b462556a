"""What differs by platform: memory, ports, processes, networks."""
