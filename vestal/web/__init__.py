"""What all HTTP services of Vestal share: which requests are admitted, and what a refusal looks like.

The listener (9099), the gateway (11435) and the orchestrator (8088) refuse the same request with the same
status and code. Listener and orchestrator answer `{"error": {"code", "message", ...}}`; each dialect of the
gateway has an envelope of its own around the same code and message. The shared codes, spelled as HTTP spells
them:

    invalid_json            400   the body is empty, not UTF-8, not JSON, nested too deeply, or not an object
    invalid_request         400   a field or parameter has a wrong type or value; not exactly one Host header;
                                  both Content-Length and Transfer-Encoding
    unauthorized            401   no token, a wrong one, or more than one Authorization header
    forbidden               403   a Host that is not this service, or an Origin or site that may not use it
    not_found               404   nothing is at this address
    method_not_allowed      405   the address takes other methods; `Allow` names them
    request_timeout         408   the body did not arrive in time
    too_large               413   the body is over the service's limit of bytes or of values
    unsupported_media_type  415   the body is not `application/json`
    too_many_requests       429   over the rate limit; `Retry-After` says when to ask again
    internal_error          500   a fault of the service; its log has the details

A refusal that only one service makes has a code of its own (`unknown_task`, `model_not_found`). The page
docs/decisions/0015-one-http-guard.md explains this list. This package imports nothing else of Vestal; aiohttp
and prometheus_client are imported only by the modules that are about them.

    http_error        the error that all services answer with, and its JSON envelope
    guard             decides (pure) whether a request may come in
    json_body         decides (pure) whether a body is a JSON object
    descriptors       raises the limit of open files, and says how many clients it leaves room for
    connections       decides (pure) which connections are closed
    acceptor          accepts connections while there is room, and makes room
    aiohttp_adapter   the guard as aiohttp middleware; reads bodies, and begins streams of events
    aiohttp_runner    runs an aiohttp application, and refuses malformed HTTP in JSON
    asgi_adapter      the guard as ASGI middleware, with CORS
    histogram         counts of durations by size (pure)
    metrics           the text of GET /metrics
    events            one JSON line for each event
"""
