"""The routes that llama-server adds to OpenAI's: tokens of a text, text of tokens, a chat as its template
writes it."""

DIALECT = "llama.cpp"
