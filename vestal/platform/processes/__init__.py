"""Look at the processes of this machine, and tell which of them are Vestal's."""
