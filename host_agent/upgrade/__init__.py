"""Replace what runs older code or settings than are installed, without an interruption.

`upgrades` runs one upgrade at a time in the agent, `check` tries the new program first, `request_file` has
the environment in which `vestal up` asks for it, and `installed` lists the digests of this installation.
docs/decisions/0023-upgrade-in-place.md explains the whole.
"""
