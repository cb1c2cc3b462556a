"""The prompt cache: keys and values of prompts seen before, in RAM over disk, in blocks of tokens.

    keys  lru  blob          names; what goes first; a file's bytes                   pure
    block  snapshot  entry   what is kept under a key, and its file                   no I/O
    folder  write_behind     files, and the thread that writes them
    disk  →  store           the lower level; both: finds, keeps                      the MLX thread's
    kv  →  model_cache       from MLX's caches and back; one model's share            the MLX thread's

A block holds what a model computed for BLOCK_TOKENS tokens in a row; its key is a rolling hash over the
model's identity and all tokens from the first to the block's last. So prompts that begin alike share blocks,
and a turn that goes on from an earlier one writes its own tokens only. What cannot be cut into blocks
(rotating caches, arrays of state) is kept whole, at the end of a prompt and of an answer. Any doubt is a
miss, and a miss is never an error. Only `kv` knows MLX: all else is plain bytes in numpy's hands.
"""
