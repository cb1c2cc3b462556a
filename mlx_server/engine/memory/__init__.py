"""Forecast what a model or a request will take in memory, and decide before it starts whether it fits.

kv, weights, forecast   the forecast, from config.json and the headers of the weight files
ledger                  the decision, from what exists, who holds it, and what is needed. Pure
guard                   the engine's current ledger; `readings` reads the machine
refusals, wait_policy   the errors that clients get; how long a request waits
"""
