"""The HTTP APIs, one folder each: `ollama`, `openai`, `anthropic`, `responses`, `llama_cpp`, `rerank`.

`responses` is described in its own `__init__`. Each other dialect has these modules; `llama_cpp` and `rerank`
generate no text, and have only those that they need:

| module   | job                                                                                        |
|----------|--------------------------------------------------------------------------------------------|
| `schema` | the request bodies (`Body`), each with a method that converts it to requests for a model   |
| `render` | the answers: a whole one as an object, an `AnswerRenderer` for the parts of a stream       |
| `routes` | `router(context)`: read a body, submit its requests, return the whole answer or a stream   |

All dialects share these modules:

| module            | what it offers                                                                       |
|-------------------|--------------------------------------------------------------------------------------|
| `context`         | `GatewayContext`: settings, models, `submit` for one request, `generate` for answers |
| `bodies`          | `read_body`, and the field types that keep validation strict and cheap               |
| `body_reading`    | the bytes of a body, with limits on size, on time, and on the memory of all bodies   |
| `body_budget`     | the memory that large bodies share                                                   |
| `value_limits`    | how many values a body may hold                                                      |
| `sampling_fields` | the settings of sampling, with the values that mean "off"                            |
| `validation`      | describes the first mistake in a body in one sentence                                |
| `tools`           | the functions that a client offers                                                   |
| `chat`            | roles and order of messages, their parts, which tools are offered and may be called  |
| `translation`     | `translated`: the translation of a large body in a thread                            |
| `answer_parts`    | `AnswerPart`: the content that an event of the engine adds to an answer              |
| `answers`         | `Answers`: the parts of one or several answers, as they arrive or whole              |
| `streaming`       | `stream_answers`, and the cancelling of requests whose client disconnects            |
| `embeddings`      | has the texts of a request embedded, some at a time                                  |
| `error_envelopes` | the form that errors have in each dialect, by path                                   |
| `api_document`    | /openapi.json                                                                        |

To add a dialect:

1. Make a folder with `schema`, `render` and `routes`; `anthropic` is the shortest example that generates and
   streams answers. Its `__init__` holds `DIALECT`, the name that logs and metrics show.
2. Include its router in `gateway.app`. Add its generating routes to `GENERATING_PATHS` there, and to
   `_DIALECTS` in `gateway.in_flight.entries`.
3. If its errors look different, or its paths are not below one that is listed there, add an `ErrorEnvelope`
   or the paths to `error_envelopes`.
4. Add its bodies to `test_schemas.py` in `tests/unit/mlx_server/gateway/dialects`, its renderer to
   `test_renderers.py`, and its official client to `tests/clients`.
"""
