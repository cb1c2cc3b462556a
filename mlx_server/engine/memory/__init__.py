"""Decide before a model is loaded or a request starts whether it fits into memory, by `memory_forecast`.

ledger                  the decision, from what exists, who holds it, and what is needed. Pure
guard                   the engine's current ledger; `readings` reads the machine
refusals, wait_policy   the errors that clients get; how long a request waits
"""
