"""What is installed, as digests, to notice that a process runs older code or settings."""
