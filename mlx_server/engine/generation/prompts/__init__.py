"""Turn the messages and tools of a request into the tokens of the prompt."""
