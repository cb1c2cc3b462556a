"""The prompt cache: keys and values of earlier prompts, in RAM and on disk, in blocks of tokens; and those of
the last requests, in MLX's memory.

    keys  lru  blob             names of prefixes; eviction order; the bytes of a file       pure
    block  snapshot  entry      what is stored under a key, and its file's contents          pure
    prefix_match                what is stored for the beginning of a prompt                 pure
    ready_caches  ram_tier      the tiers in memory: caches of ended requests; blocks        pure
    disk/                       the tier on disk: files, the threads that write and read them
    preload_order               what is read from disk before a request asks for it          pure
    preloads                    the jobs that read it
    prefix_restore              reads what is stored for a prompt                            any thread
    store                       all tiers: find, restore, insert                             MLX thread
    mlx_arrays  model_cache     conversion from and to MLX's caches; one model's share       MLX thread

A block holds the keys and values of BLOCK_TOKENS consecutive tokens. Its key is a rolling hash over the
model's identity and all tokens from the first one to the block's last. So prompts with the same beginning
share blocks, and a turn that continues an earlier one writes only its own tokens. A cache that cannot be cut
into blocks (rotating caches, arrays of state) is stored whole, as a snapshot, at the end of a prompt and at
the end of an answer. In any doubtful case, nothing is found, and the prompt is computed; that is never an
error. Only `mlx_arrays` uses MLX. Everything else handles plain bytes in numpy arrays, or passes caches on.

A runner (`scheduling/runners/text_runner.py`) inserts keys and values after each part of a prompt, every 64
tokens of an answer, and at the end. Each block is queued at once for the writing thread. A block that does
not fit into the queue, or cannot be written, is queued again while the engine is idle and at shutdown.
"""
