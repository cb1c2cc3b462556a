"""The command `vestal completion`: scripts that let a shell complete the other commands."""
