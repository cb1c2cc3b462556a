"""Key-value caches of requests and batches, quantized or not."""
