"""Tell the host agent which backend is down, at a bounded pace."""
