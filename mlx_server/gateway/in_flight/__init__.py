"""The requests in flight: a list for people (GET /requests), and how to cancel one (DELETE /requests/{id}).

| module         | job                                                                            |
|----------------|--------------------------------------------------------------------------------|
| `client_names` | the name of a client, from the headers of its request. Pure                    |
| `entries`      | the list of the requests: one entry for each request, at most 200. Pure        |
| `followers`    | the same list as server-sent events                                              |
| `routes`       | the HTTP routes                                                                |
"""
