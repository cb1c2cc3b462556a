"""Read images with a model's vision tower, and compute with its text model the keys and values of prompts
that contain images.
"""
