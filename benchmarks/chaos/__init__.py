"""`make chaos`: requests in flight while their engine is killed, against the same requests left in peace."""
