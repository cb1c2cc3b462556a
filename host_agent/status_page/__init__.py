"""One page that shows the services, the machine, the last recovery pass and the journal."""
