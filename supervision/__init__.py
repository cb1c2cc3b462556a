"""Supervision as in Erlang/OTP, for asyncio: standard library only."""
