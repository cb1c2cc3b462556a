"""launchd and systemd behind one interface: install, start, stop and inspect the jobs of Vestal."""
