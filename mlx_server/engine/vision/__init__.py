"""Read images with a model's vision tower, and pass them to the batch of its text model."""
