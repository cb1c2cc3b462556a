"""The command `vestal`: one module for each command, in the folders run, inspect, orchestrator and install.

`parser` names the module of each command; `main` imports it when the command is given.
"""
