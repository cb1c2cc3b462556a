"""Where the orchestrator keeps its work: one SQLite file, or, with VESTAL_DATABASE_URL, Postgres."""
