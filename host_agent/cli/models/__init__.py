"""`vestal models`: find, fetch, inspect and remove models, in one module for each action."""
