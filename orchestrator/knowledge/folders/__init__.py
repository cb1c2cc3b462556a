"""Read knowledge folders and cut their texts into chunks."""
