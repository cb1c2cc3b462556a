"""The prompt cache: keys and values of prompts seen before, in RAM over disk, in blocks of tokens.

    keys    →  lru      →  blob     →  folder       →  write_behind  →  store         →  kv
    (names)    (what goes)  (a file's   (files, one     (a thread that   (both levels;    (from MLX's caches
                             bytes)      per block)      writes)          finds, keeps)    and back)

A block holds what a model computed for BLOCK_TOKENS tokens in a row; its key is a rolling hash over the
model's identity and all tokens from the first to the block's last. So prompts that begin alike share blocks,
and a turn that goes on from an earlier one writes its own tokens only. Any doubt about a block is a miss, and
a miss is never an error. Everything but `kv` is free of MLX: blocks are plain bytes in numpy's hands.
"""
