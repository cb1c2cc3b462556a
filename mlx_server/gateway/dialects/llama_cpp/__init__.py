"""The routes that llama-server has beside OpenAI's: tokens of a text, text of tokens, a chat as its template
writes it."""

DIALECT = "llama.cpp"
