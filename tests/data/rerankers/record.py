"""Record the scores of the reference implementations for the rerankers with random weights.

    python tests/data/rerankers/record.py > tests/data/rerankers/scores.json

It needs torch, transformers 5 and sentence-transformers 6 (recorded with 2.15, 5.24 and 6.2). Cross-encoders
are run by sentence-transformers' CrossEncoder; Qwen3-Reranker as its model card does, pair by pair.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch  # type: ignore[import-not-found]
from sentence_transformers import CrossEncoder  # type: ignore[import-not-found]
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.models.random_rerankers import DOCUMENTS, FAMILIES, QUERIES

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def of_cross_encoder(folder: Path) -> list[list[float]]:
    model = CrossEncoder(str(folder), device="cpu")
    return [model.predict([(query, text) for text in DOCUMENTS]).tolist() for query in QUERIES]


def of_judge(folder: Path, is_classifier: bool) -> list[list[float]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind = AutoModelForSequenceClassification if is_classifier else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    yes, no = tokenizer.convert_tokens_to_ids("yes"), tokenizer.convert_tokens_to_ids("no")

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    @torch.no_grad()
    def score(query: str, text: str) -> float:
        middle = f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>: {text}"
        logits = model(torch.tensor([ids(PREFIX) + ids(middle) + ids(SUFFIX)])).logits
        if is_classifier:
            return torch.sigmoid(logits[0, 0]).item()
        return torch.softmax(logits[0, -1, [no, yes]], dim=0)[1].item()

    return [[score(query, text) for text in DOCUMENTS] for query in QUERIES]


def main() -> None:
    scores = {}
    for family, write in FAMILIES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / family
            write(folder)
            if family.startswith("qwen3"):
                scores[family] = of_judge(folder, family == "qwen3-classifier")
            else:
                scores[family] = of_cross_encoder(folder)
            if family == "qwen3":
                scores["qwen3 by sentence-transformers"] = of_cross_encoder(folder)
    print(json.dumps(scores, indent=1))


main()
