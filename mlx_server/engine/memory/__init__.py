"""Decide, by forecasts (`memory_forecast`), whether a model to load or a request to start fits into memory.

ledger                  decides this, from the machine's memory, what each model holds, and the need. Pure
guard                   keeps the reservations and makes the ledger; `readings` reads the machine's memory
forecasts               forecasts what each model and its requests take, and keeps the forecasts
refusals, wait_policy   the errors that clients get; how long a request waits
"""
