"""Read images with a model's vision tower, and join them to the batch of its text model."""
