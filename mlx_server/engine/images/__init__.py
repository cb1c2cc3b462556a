"""Decode image files from clients to pixels. Pillow is imported with the first image."""

from mlx_server.engine.images.decoding import MAX_PIXELS, decode, decode_all

__all__ = ["MAX_PIXELS", "decode", "decode_all"]
