"""The disk tier of the prompt cache.

folder                      the files of blocks and snapshots
write_behind                the thread that writes them
block_reader                reads and checks files ahead of the MLX thread               any thread
disk_tier                   which keys are on disk, and which wait to be written         MLX thread
"""
