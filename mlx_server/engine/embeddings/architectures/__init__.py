"""Encoders in MLX, one module for each architecture, and `build.build_encoder`, which loads one from a
folder.

`ModelKind.encoder` names the module for a model. Each module has two functions: `create(config)` returns the
encoder that a config.json describes, and `rename(weights)` renames the tensors of the weight files to the
names of the encoder's attributes.
"""
