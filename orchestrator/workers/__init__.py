"""Many workers on one Postgres: who is alive, and who goes on with the tasks of the dead."""
