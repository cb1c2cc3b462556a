"""Encoders in MLX, a module for each architecture, and `build.build_encoder`, which makes one from a folder.

A module is named by `ModelKind.encoder`, and has two functions: `create(config)` returns the encoder that
a config.json describes, and `rename(weights)` gives the tensors of the files the names of its attributes.
"""
