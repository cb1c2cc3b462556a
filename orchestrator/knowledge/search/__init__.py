"""Search knowledge: by meaning and by words, in SQLite or Postgres, fused by rank."""
