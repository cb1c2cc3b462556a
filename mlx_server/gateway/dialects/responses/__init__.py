"""OpenAI's Responses API, as the Open Responses specification (2026-04-24) defines it.

A body becomes a `ResponseRun`, which is independent of the client's connection: it reads the answer from the
engine and stores the events that make it up. A stream, a WebSocket, a waiting client and a later GET all
follow the same run.

| module          | job |
|-----------------|------|
| `schema`        | the request bodies |
| `input_items`   | checks the items of `input`, and converts them to the form in which they are stored |
| `messages`      | items → the messages that chat templates expect |
| `offered_tools` | `tools` and `tool_choice` → functions, what is skipped, what is forced, what is allowed |
| `resource`      | the response object: the parameters, the status, the usage |
| `output_items`  | the parts of an answer → output items, and the events that build them |
| `events`        | the numbered events of one response from its creation to its end |
| `running`       | `ResponseRun`: drives one answer, stores its events, lets others follow them |
| `stored`        | the latest responses, which are in memory |
| `references`    | the ids of items, and what a body refers to by such ids |
| `earlier_responses` | finds a response by its id: in memory, or from its records in the answer log |
| `creation`      | body → run: has what the body refers to found, translates, submits |
| `compaction`    | POST /v1/responses/compact |
| `routes`        | the HTTP routes |
| `websocket`     | the same over one WebSocket |
"""

DIALECT = "responses"
