"""The MLX server's face: HTTP in Ollama's and OpenAI's dialects, in a process that never imports mlx.

Requests live here, engines come and go: see `request_table` (decides) and `dispatcher` (acts).
"""
