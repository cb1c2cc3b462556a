"""Benchmarks of the MLX server and of the servers it is compared with (peers): speed, latency, memory, and
recovery after a kill.
"""
