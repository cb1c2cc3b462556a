"""Measurements of Vestal and, where there are any, of comparable programs: `make bench`, `make chaos`."""
