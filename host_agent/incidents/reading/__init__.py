"""Read the journal's events, and open, change and end incidents accordingly.

Each of the classes ChildEvents, AgentEvents, RecoveryEvents and RequestEvents handles some of the events, by
methods that have the events' names. An event without such a method is ignored.
"""
