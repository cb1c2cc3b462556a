"""The command `vestal`: one module for each command, in a folder for each group.

`commands` names the module of each command, `parser` reads the options, and `main` imports the module when
the command is given.
"""
