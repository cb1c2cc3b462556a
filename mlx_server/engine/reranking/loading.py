"""Load the reranker in a folder, which is a cross-encoder, or a language model that answers with
yes or no.
"""

from __future__ import annotations

from pathlib import Path

from mlx_server.engine.reranking.reranker import Reranker
from mlx_server.model_store.files.weight_files import read_config, read_json_object


def load_reranker(folder: Path, context_tokens: int) -> Reranker:
    """Return the reranker in `folder`. Its weights are read from the disk when they are evaluated.

    Raises OSError, ValueError, KeyError or RequestError if the folder does not hold a supported model.
    """
    config = read_config(folder)
    path = folder / "config_sentence_transformers.json"
    sentence_config = read_json_object(path) if path.is_file() else {}
    if config.get("model_type") == "qwen3":
        from mlx_server.engine.reranking.judge import load_judge

        return load_judge(folder, config, sentence_config, context_tokens)
    from mlx_server.engine.reranking.cross_encoder import load_cross_encoder

    return load_cross_encoder(folder, config, sentence_config, context_tokens)
