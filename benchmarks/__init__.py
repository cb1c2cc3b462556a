"""Measurements, with the same for other programs if there are any: `make bench`, `make chaos`."""
