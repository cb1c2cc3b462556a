"""Search knowledge: by meaning and by words, in SQLite or Postgres, fused by rank; a model may rank the
finds."""
