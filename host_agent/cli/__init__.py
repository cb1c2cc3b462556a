"""The command `vestal`: each of its commands is a module, in a folder for each group of commands.

`commands` names the module of each command, `parser` reads the options, and `main` imports only the module of
the command that the user gave.
"""
