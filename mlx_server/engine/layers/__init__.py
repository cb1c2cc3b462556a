"""Functions that replace those of mlx-lm in a model's layers: attention, activations, rotary positions."""
