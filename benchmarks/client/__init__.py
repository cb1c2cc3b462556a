"""Send requests in every dialect (the API of Ollama, OpenAI or Anthropic), and read the answers.

| module      | job                                                                            |
|-------------|--------------------------------------------------------------------------------|
| `requests`  | requests in every dialect, drawn from a seed                                   |
| `returning` | a client that comes back to an answer that was cut off                         |
| `frames`    | a streamed response, split into events or lines for `returning`                |
| `once`      | a client that does not come back                                               |
| `reading`   | an answer, put together from the JSON that a server sends, in each dialect     |
"""
