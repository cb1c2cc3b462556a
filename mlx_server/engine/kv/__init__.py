"""Key-value caches of requests and batches, and their quantization."""
