"""Ours beside supervisord and circus, with the same misbehaving children."""
