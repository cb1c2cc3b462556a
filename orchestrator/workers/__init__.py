"""Several workers on one Postgres: which are alive, and how the tasks of dead ones are taken over."""
