"""Handing over to another gateway, which goes on with what this one has accepted.

`successor` reads answers from the other gateway and forwards requests to it, `forwarding` is the ASGI
middleware that does so for the connections that are left, and `handing_over` is the order of it all.
docs/decisions/0023-upgrade-in-place.md has the contract between the agent and both gateways.
"""
