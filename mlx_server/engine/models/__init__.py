"""Load models and tokenizers, decide which models remain in memory, and test that they compute."""
