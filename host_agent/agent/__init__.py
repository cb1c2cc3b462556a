"""The agent itself: assembles the services, runs them, and stops them in order."""
