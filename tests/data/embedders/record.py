"""Record the vectors of sentence-transformers for the models of tests/models/embedder_folders.py.

Run it from the repository's root, in an environment with sentence-transformers 6, torch, numpy and
safetensors: `python -m tests.data.embedders.record`. It writes vectors.json beside itself: for each family
the numbers of all TEXTS, as base64 of little-endian float32.
"""

import base64
import json
import tempfile
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]
from transformers import PreTrainedTokenizerFast

from tests.models.embedder_folders import FAMILIES, NOMIC_IN_TRANSFORMERS, TEXTS, make


def main() -> None:
    recorded = {}
    with tempfile.TemporaryDirectory() as parent:
        for family in FAMILIES:
            folder = make(family, Path(parent) / family)
            if family == "nomic_bert":
                (folder / "config.json").write_text(json.dumps(NOMIC_IN_TRANSFORMERS))
            model = SentenceTransformer(str(folder), device="cpu")
            # The library makes another tokenizer for Qwen2, whatever the model's files say.
            limit = model.max_seq_length
            model[0].processor = PreTrainedTokenizerFast.from_pretrained(str(folder))
            model.max_seq_length = limit
            vectors = model.encode(list(TEXTS))
            raw = np.ascontiguousarray(vectors, dtype="<f4")
            recorded[family] = {"dim": raw.shape[1], "vectors": base64.b64encode(raw.tobytes()).decode()}
            print(family, raw.shape, float(np.linalg.norm(raw[0])))
    Path(__file__).with_name("vectors.json").write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()
