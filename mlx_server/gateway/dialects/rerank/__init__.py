"""Ranking documents, in the shapes of Jina and Cohere, which llama-server, vLLM and others have too, and in
that of text-embeddings-inference (TEI)."""

DIALECT = "rerank"
"""The routes /rerank, /v1/rerank, /v2/rerank, and llama-server's /reranking and /v1/reranking."""
