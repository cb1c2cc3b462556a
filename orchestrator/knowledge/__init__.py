"""Manage the agents' knowledge: folders of text files, cut into chunks, embedded, and searched."""
