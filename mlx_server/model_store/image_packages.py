"""Tell which packages of the extra `vision` are not installed, without importing them."""

from __future__ import annotations

import importlib.util

PACKAGES = {"mlx_vlm": "mlx-vlm", "PIL": "Pillow", "requests": "requests"}
"""Maps each module without which the engine cannot read images to the name of its package."""


def missing_image_packages() -> tuple[str, ...]:
    """Return the names of the packages that the engine needs to read images and that are not installed."""
    return tuple(package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None)


def reads_heic() -> bool:
    """Return whether `pillow-heif`, the decoder for HEIC, is installed. Vestal does not install it itself."""
    return importlib.util.find_spec("pillow_heif") is not None
