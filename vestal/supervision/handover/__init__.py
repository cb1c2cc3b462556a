"""Replace a child's process by a successor, which starts while the old process serves and then takes over.

`plan` decides (pure), `child_handovers` acts for a supervisor, and `successor` is for the program that is the
successor. docs/decisions/0023-upgrade-in-place.md has the contract between the three.
"""
