"""The operating-system processes of children: launch, find, watch and end them, whole groups at a time."""
