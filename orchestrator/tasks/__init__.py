"""Durable tasks: planned by the lead, answered by agents, joined; killed anywhere, they go on."""
