"""Reading a model's weights from the disk, and checking later that they were undamaged."""
