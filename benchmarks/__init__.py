"""Measurements, beside the peers where there are any: `make bench`, `make chaos`."""
