"""Read a model's weights from the disk, and check before or after their use that they are undamaged."""
