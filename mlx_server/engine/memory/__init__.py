"""Memory is never the surprise: what a model and a request will take, known before either is begun.

kv, weights, forecast   what it will take, from config.json and the weight files' headers
ledger                  what there is, who has it, and what to do about a need: pure
guard                   the engine's own ledger, kept current; `host` reads the machine
"""
