"""Search knowledge by meaning and by words, in SQLite or Postgres. The two rankings are fused, and a
reranking model may order the results again.
"""
