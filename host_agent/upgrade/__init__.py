"""Replace processes that run older code or settings than are installed, without an interruption.

`upgrades` runs one upgrade at a time in the agent, `check` tries the new program first, `request_file` passes
the environment of `vestal up` to the new agent, `installed` computes a digest of each part's code and
settings, by which outdated processes are found, and `leftovers` stops services that the settings no longer
include. docs/decisions/0023-upgrade-in-place.md explains the design.
"""
