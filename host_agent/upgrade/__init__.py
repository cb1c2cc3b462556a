"""Replace processes that run older code or settings than are installed, without an interruption.

`upgrades` runs one upgrade at a time in the agent, `check` tries the new program first, `request_file` has
the environment that `vestal up` wants for the new agent, `installed` the digests of this installation, and
`leftovers` stops services that the settings no longer include. docs/decisions/0023-upgrade-in-place.md
explains the design.
"""
