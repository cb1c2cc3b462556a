"""The command `vestal completion`: scripts with which a shell completes the other commands."""
