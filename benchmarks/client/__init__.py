"""Send requests in every dialect, and read the answers.

| module      | job                                                                                |
|-------------|------------------------------------------------------------------------------------|
| `requests`  | requests in every dialect, drawn from a seed                                       |
| `returning` | a client that comes back to an answer that was cut off; `frames` splits its stream |
| `once`      | a client that does not come back                                                   |
| `reading`   | the answer in the messages of a server, in each dialect                            |
"""
