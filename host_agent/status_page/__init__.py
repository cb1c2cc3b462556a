"""One page that shows what lives, what died, why, and what was done about it (R6.5)."""
