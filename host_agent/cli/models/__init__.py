"""`vestal models`: find, fetch, inspect and remove models. One module for each action."""
