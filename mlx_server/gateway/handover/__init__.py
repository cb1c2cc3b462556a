"""Hand over to another gateway, which continues the requests that this one has accepted.

`successor` reads answers from the other gateway and forwards requests to it, `forwarding` is the ASGI
middleware that forwards the requests of the remaining connections, and `handing_over` has the steps in order.
docs/decisions/0023-upgrade-in-place.md has the contract between the agent and both gateways.
"""
