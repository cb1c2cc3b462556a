"""The prompt cache: keys and values of earlier prompts, in RAM and on disk, in blocks of tokens.

    keys  lru  blob             names of prefixes; eviction order; the bytes of a file       pure
    block  snapshot  entry      what is stored under a key, and its file's contents          pure
    preload                     what is read from disk before a request asks for it          pure
    disk/                       the lower tier: files, the threads that write and read them
    store                       both tiers, RAM and disk: find, restore, insert              MLX thread
    mlx_arrays  model_cache     conversion from and to MLX's caches; one model's share       MLX thread

A block holds the keys and values of BLOCK_TOKENS consecutive tokens. Its key is a rolling hash over the
model's identity and all tokens from the first one to the block's last. So prompts with the same beginning
share blocks, and a turn that continues an earlier one writes only its own tokens. A cache that cannot be cut
into blocks (rotating caches, arrays of state) is stored whole, as a snapshot, at the end of a prompt and at
the end of an answer. In any doubtful case, nothing is found, and the prompt is computed; that is never an
error. Only `mlx_arrays` uses MLX. Everything else handles plain bytes in numpy arrays.

A runner (`scheduling/runners/text_runner.py`) inserts keys and values after each part of a prompt, every 64
tokens of an answer, and at the end. Each block is queued at once for the writing thread. A block that does
not fit into the queue, or cannot be written, is queued again while the engine is idle and at shutdown.
"""
