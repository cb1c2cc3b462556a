"""The APIs that rank documents: Jina's and Cohere's, which llama-server, vLLM and others also offer, and that
of text-embeddings-inference (TEI).
"""

DIALECT = "rerank"
"""The name, in logs and metrics, of the routes /rerank, /v1/rerank, /v2/rerank, and of llama-server's
/reranking and /v1/reranking."""
