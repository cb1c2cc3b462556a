"""Drafting: guess the next tokens of an answer, and check several guesses in one step of the model.

A guess is accepted only where it equals the token that the request would have drawn without it, so drafting
changes the speed of an answer and never its text.
"""
