"""Test langchain-ollama against the real server and the real models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lazy_packages import LazyPackage

langchain_core_messages = LazyPackage("langchain_core.messages")
langchain_ollama = LazyPackage("langchain_ollama")

pytestmark = pytest.mark.model

MODEL = "smollm2:135m"


def question() -> list[Any]:
    system = langchain_core_messages.SystemMessage("You are terse.")
    return [system, langchain_core_messages.HumanMessage("What is the capital of France?")]


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


def test_langchain_chat_model_returns_text_and_token_counts(made):
    answer = made(langchain_ollama.ChatOllama, MODEL, temperature=0, num_predict=24).invoke(question())
    assert "Paris" in answer.content
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["done_reason"] == "stop"


def test_langchain_chat_model_streams_the_whole_answer(made):
    model = made(langchain_ollama.ChatOllama, MODEL, temperature=0, num_predict=24)
    assert "Paris" in "".join(str(piece.content) for piece in model.stream(question()))


def test_langchain_text_model_returns_a_completion(made):
    assert made(langchain_ollama.OllamaLLM, MODEL, temperature=0, num_predict=8).invoke("Say hello.")


def test_langchain_embeddings_have_the_dimension_of_the_model(made):
    vectors = made(langchain_ollama.OllamaEmbeddings, "all-minilm").embed_documents(["a", "b"])
    assert [len(vector) for vector in vectors] == [384, 384]
