"""OpenAI's Responses API, as the Open Responses specification (2026-04-24) writes it down.

A body becomes a `ResponseRun`, which lives on its own: it reads the answer from the engine and keeps the
events that make it up. A stream, a WebSocket, a waiting client and a later GET all follow the same run.

| module          | job |
|-----------------|------|
| `schema`        | the request bodies |
| `input_items`   | checks the items of `input`, and gives them the form in which they are kept |
| `messages`      | items → the messages that chat templates take |
| `offered_tools` | `tools` and `tool_choice` → functions, what is skipped, what is forced, what is allowed |
| `truncation`    | drops the oldest turns of a conversation that is longer than the context |
| `resource`      | the response object: the parameters, the status, the usage |
| `output_items`  | the parts of an answer → output items, and the events that build them |
| `events`        | the numbered events of one response from its creation to its end |
| `running`       | `ResponseRun`: drives one answer, keeps its events, lets others follow them |
| `stored`        | the responses that can be asked for later |
| `creation`      | body → run: looks up what the body refers to, translates, submits |
| `compaction`    | POST /v1/responses/compact |
| `routes`        | the HTTP routes |
| `websocket`     | the same over one WebSocket |
"""

DIALECT = "responses"
