"""Hand over to another gateway, which continues the requests that this gateway has accepted.

`successor` reads answers from the other gateway and forwards requests to it. `forwarding` is the ASGI
middleware that forwards the requests of the remaining connections. `handing_over` contains the steps in
order. docs/decisions/0023-upgrade-in-place.md describes the contract between the agent and both gateways.
"""
