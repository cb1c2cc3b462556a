"""Which packages of the extra `vision` this Python lacks; nothing of them is imported."""

from __future__ import annotations

import importlib.util

PACKAGES = {"mlx_vlm": "mlx-vlm", "PIL": "Pillow", "requests": "requests"}
"""The modules without which the engine reads no images, each with the name of its package."""


def missing_image_packages() -> tuple[str, ...]:
    """Return the names of the packages that a model which reads images needs and that are not installed."""
    return tuple(package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None)


def reads_heic() -> bool:
    """Return whether `pillow-heif`, the decoder for HEIC, is installed. Vestal does not install it itself."""
    return importlib.util.find_spec("pillow_heif") is not None
