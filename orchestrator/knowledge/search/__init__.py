"""Search knowledge by meaning and by words, in SQLite or Postgres. The two rankings are fused, and a model
may rank the results again.
"""
