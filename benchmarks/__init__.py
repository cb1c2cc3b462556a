"""Measurements, with the same for other programs where there are any: `make bench`, `make chaos`."""
