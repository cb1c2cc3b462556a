"""Decide, by `memory_forecast`, whether a model to load or a request to start fits into memory.

ledger                  makes the decision, from what exists, who holds it, and what is needed. Pure
guard                   has the engine's current ledger; `readings` reads the machine's figures
refusals, wait_policy   the errors that clients get; how long a request waits
"""
