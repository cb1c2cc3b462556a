"""Load models and tokenizers, decide which stay in memory, and test that they compute."""
