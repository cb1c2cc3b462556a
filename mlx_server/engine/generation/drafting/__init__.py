"""Drafting (speculative decoding): draft the next tokens of an answer cheaply, and verify several of them in
one step of the model.

A drafted token is accepted only if it equals the token that the request would have drawn without drafting. So
drafting changes the speed of an answer, but not its text.
"""
