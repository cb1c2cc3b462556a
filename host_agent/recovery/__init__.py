"""The recovery pass (R4.2): checks → issues → remedies → re-check. `plan` decides, `passes` acts."""
