"""Replace the process of a child by a successor that starts while it serves, and takes its work over.

`plan` decides (pure), `child_handovers` acts for a supervisor, and `successor` is for the program that is the
successor. docs/decisions/0023-upgrade-in-place.md has the contract between the three.
"""
