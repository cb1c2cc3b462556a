"""Decide what happens to one child: a pure state machine, its states, its limits. No clock, no I/O."""
