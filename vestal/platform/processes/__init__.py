"""Read the processes of this machine, and find those that belong to Vestal."""
