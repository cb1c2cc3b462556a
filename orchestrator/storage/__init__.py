"""Provide the orchestrator's database: one SQLite file, or Postgres if VESTAL_DATABASE_URL is set."""
