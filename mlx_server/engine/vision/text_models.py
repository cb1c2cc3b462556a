"""Find the class of a text model for its `model_type`: usually mlx-lm's class of that name. For some vision
models, mlx-lm has the class under another name, or has none, so that we use our own.
"""

from __future__ import annotations

from typing import Any

from mlx_lm import utils

from mlx_server.model_store.files.loadable import OTHER_NAMES, OWN_CLASSES


def model_classes(config: dict[str, Any]) -> tuple[Any, Any]:
    """Return the class of the text model for `config` and the class of its configuration, for mlx-lm's
    `load_model`.
    """
    kind = str(config.get("model_type"))
    if kind in OWN_CLASSES:
        from mlx_server.engine.vision.idefics3_text import (  # a text-only engine needs no Llama
            Model,
            ModelArgs,
        )

        return Model, ModelArgs
    known = utils._get_classes({**config, "model_type": OTHER_NAMES.get(kind, kind)})
    return known[0], known[1]
