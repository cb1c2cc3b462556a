"""The routes that llama-server adds to OpenAI's API: text to tokens, tokens to text, and the prompt that a
template makes of a chat.
"""

DIALECT = "llama.cpp"
