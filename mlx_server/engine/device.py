"""Tell whether MLX computes on a GPU (Metal or CUDA), for which it has fast kernels, or on a CPU."""

from __future__ import annotations

import mlx.core as mx


def computes_on_gpu() -> bool:
    """Return whether MLX's default device is a GPU."""
    return bool(mx.default_device().type == mx.DeviceType.gpu)
