"""From a request's messages and tools to the prompt's tokens."""
