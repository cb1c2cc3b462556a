"""Report to the host agent which backend is down, at a limited rate."""
