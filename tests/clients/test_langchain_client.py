"""Test langchain-ollama against the real server and the real models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM

pytestmark = pytest.mark.model

MODEL = "smollm2:135m"
QUESTION = [SystemMessage("You are terse."), HumanMessage("What is the capital of France?")]


@pytest.fixture
def made(real_server) -> Iterator[Callable[..., Any]]:
    """Return a function that creates a LangChain object for the server; close its connections at the end."""
    things: list[Any] = []

    def make(kind: Callable[..., Any], model: str, **settings: Any) -> Any:
        things.append(kind(model=model, base_url=real_server.url, **settings))
        return things[-1]

    yield make
    for thing in things:
        thing._client._client.close()


def test_chat_model_returns_text_and_token_counts(made):
    answer = made(ChatOllama, MODEL, temperature=0, num_predict=24).invoke(QUESTION)
    assert "Paris" in answer.content
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["done_reason"] == "stop"


def test_chat_model_streams_its_answer_in_parts(made):
    model = made(ChatOllama, MODEL, temperature=0, num_predict=24)
    assert "Paris" in "".join(str(piece.content) for piece in model.stream(QUESTION))


def test_text_model_returns_a_completion(made):
    assert made(OllamaLLM, MODEL, temperature=0, num_predict=8).invoke("Say hello.")


def test_embeddings_have_the_dimension_of_the_model(made):
    vectors = made(OllamaEmbeddings, "all-minilm").embed_documents(["a", "b"])
    assert [len(vector) for vector in vectors] == [384, 384]
