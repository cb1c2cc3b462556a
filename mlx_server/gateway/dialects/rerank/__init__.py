"""The APIs that rank documents: those of Jina and Cohere, which llama-server, vLLM and others have too, and
that of text-embeddings-inference (TEI).
"""

DIALECT = "rerank"
"""The routes /rerank, /v1/rerank, /v2/rerank, and llama-server's /reranking and /v1/reranking."""
