"""Compare our supervisor with supervisord and circus, with the same misbehaving children."""
