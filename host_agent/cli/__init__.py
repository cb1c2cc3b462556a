"""The command `vestal`. One module a command; nothing is imported before it is needed."""
