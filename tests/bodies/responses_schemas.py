"""What the Open Responses specification (2026-04-24) demands of every object that a server sends.

Written by hand from the specification's API document, as JSON Schema: the required fields, their types, and
the values that are enumerated. `violations` checks an object against one of them.

One schema differs from the document on purpose: there, the `schema` of a `text.format` can only be null. It
is an object here, as OpenAI's server and client have it.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def any_of(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def or_null(schema: Schema) -> Schema:
    return any_of(schema, {"type": "null"})


def list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def an_object(optional: dict[str, Schema] | None = None, /, **required: Schema) -> Schema:
    properties = {name.rstrip("_"): schema for name, schema in required.items()}
    return {"type": "object", "required": list(properties), "properties": properties | (optional or {})}


def ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


STATUS = one_of("in_progress", "completed", "incomplete")
CALL_ENDS = an_object(type=one_of("function"), name=TEXT)
PARTS = {
    "InputText": an_object(type=one_of("input_text"), text=TEXT),
    "OutputText": an_object(
        {"logprobs": list_of(ref("LogProb"))},
        type=one_of("output_text"),
        text=TEXT,
        annotations=list_of(ref("Annotation")),
    ),
    "PlainText": an_object(type=one_of("text"), text=TEXT),
    "SummaryText": an_object(type=one_of("summary_text"), text=TEXT),
    "ReasoningText": an_object(type=one_of("reasoning_text"), text=TEXT),
    "Refusal": an_object(type=one_of("refusal"), refusal=TEXT),
    "InputImage": an_object(
        type=one_of("input_image"), image_url=or_null(TEXT), detail=one_of("low", "high", "auto")
    ),
    "InputFile": an_object({"filename": TEXT, "file_url": TEXT}, type=one_of("input_file")),
}
PART = any_of(*map(ref, PARTS))
ITEMS = {
    "Message": an_object(
        {"phase": one_of("commentary", "final_answer")},
        type=one_of("message"),
        id=TEXT,
        status=STATUS,
        role=one_of("user", "assistant", "system", "developer"),
        content=list_of(PART),
    ),
    "FunctionCall": an_object(
        type=one_of("function_call"), id=TEXT, call_id=TEXT, name=TEXT, arguments=TEXT, status=STATUS
    ),
    "FunctionCallOutput": an_object(
        type=one_of("function_call_output"),
        id=TEXT,
        call_id=TEXT,
        output=any_of(TEXT, list_of(PART)),
        status=STATUS,
    ),
    "Reasoning": an_object(
        {"content": list_of(PART), "encrypted_content": TEXT},
        type=one_of("reasoning"),
        id=TEXT,
        summary=list_of(PART),
    ),
    "Compaction": an_object(type=one_of("compaction"), id=TEXT, encrypted_content=TEXT),
}
ITEM = any_of(*map(ref, ITEMS))
MODES = one_of("none", "auto", "required")
OBJECTS = {
    "Annotation": an_object(
        type=one_of("url_citation"), url=TEXT, start_index=WHOLE, end_index=WHOLE, title=TEXT
    ),
    "TopLogProb": an_object(token=TEXT, logprob=NUMBER, bytes=list_of(WHOLE)),
    "LogProb": an_object(
        token=TEXT, logprob=NUMBER, bytes=list_of(WHOLE), top_logprobs=list_of(ref("TopLogProb"))
    ),
    "Usage": an_object(
        input_tokens=WHOLE,
        output_tokens=WHOLE,
        total_tokens=WHOLE,
        input_tokens_details=an_object(cached_tokens=WHOLE),
        output_tokens_details=an_object(reasoning_tokens=WHOLE),
    ),
    "FunctionTool": an_object(
        type=one_of("function"),
        name=TEXT,
        description=or_null(TEXT),
        parameters=or_null({"type": "object"}),
        strict=or_null(FLAG),
    ),
    "ToolChoice": any_of(
        an_object({"name": TEXT}, type=one_of("function")),
        MODES,
        an_object(type=one_of("allowed_tools"), tools=list_of(CALL_ENDS), mode=MODES),
    ),
    "TextField": an_object(
        {"verbosity": one_of("low", "medium", "high")},
        format=any_of(
            an_object(type=one_of("text", "json_object")),
            an_object(
                type=one_of("json_schema"),
                name=TEXT,
                description=or_null(TEXT),
                schema={"type": "object"},
                strict=FLAG,
            ),
        ),
    ),
    "Error": an_object(code=TEXT, message=TEXT),
    "ErrorPayload": an_object(type=TEXT, code=or_null(TEXT), message=TEXT, param=or_null(TEXT)),
    "Response": an_object(
        id=TEXT,
        object=one_of("response"),
        created_at=WHOLE,
        completed_at=or_null(WHOLE),
        status=TEXT,
        incomplete_details=or_null(an_object(reason=TEXT)),
        model=TEXT,
        previous_response_id=or_null(TEXT),
        instructions=or_null(TEXT),
        output=list_of(ITEM),
        error=or_null(ref("Error")),
        tools=list_of(ref("FunctionTool")),
        tool_choice=ref("ToolChoice"),
        truncation=one_of("auto", "disabled"),
        parallel_tool_calls=FLAG,
        text=ref("TextField"),
        top_p=NUMBER,
        presence_penalty=NUMBER,
        frequency_penalty=NUMBER,
        top_logprobs=WHOLE,
        temperature=NUMBER,
        reasoning=or_null(
            an_object(
                effort=or_null(one_of("none", "low", "medium", "high", "xhigh")),
                summary=or_null(one_of("concise", "detailed", "auto")),
            )
        ),
        usage=or_null(ref("Usage")),
        max_output_tokens=or_null(WHOLE),
        max_tool_calls=or_null(WHOLE),
        store=FLAG,
        background=FLAG,
        service_tier=TEXT,
        metadata=ANY,
        safety_identifier=or_null(TEXT),
        prompt_cache_key=or_null(TEXT),
    ),
    "CompactedResponse": an_object(
        id=TEXT,
        object=one_of("response.compaction"),
        output=list_of(ITEM),
        created_at=WHOLE,
        usage=ref("Usage"),
    ),
    "WebSocketError": an_object(
        type=one_of("error"),
        status=WHOLE,
        error=an_object({"type": TEXT, "param": or_null(TEXT)}, code=TEXT, message=TEXT),
    ),
}


def _event(name: str, /, **fields: Schema) -> Schema:
    return an_object(type=one_of(name), sequence_number=WHOLE, **fields)


IN_CONTENT = {"item_id": TEXT, "output_index": WHOLE, "content_index": WHOLE}
IN_SUMMARY = {"item_id": TEXT, "output_index": WHOLE, "summary_index": WHOLE}
IN_CALL = {"item_id": TEXT, "output_index": WHOLE}
EVENTS = {
    **{
        f"response.{state}": {"response": ref("Response")}
        for state in ("created", "queued", "in_progress", "completed", "failed", "incomplete")
    },
    "response.output_item.added": {"output_index": WHOLE, "item": or_null(ITEM)},
    "response.output_item.done": {"output_index": WHOLE, "item": or_null(ITEM)},
    "response.content_part.added": {**IN_CONTENT, "part": PART},
    "response.content_part.done": {**IN_CONTENT, "part": PART},
    "response.output_text.delta": {**IN_CONTENT, "delta": TEXT},
    "response.output_text.done": {**IN_CONTENT, "text": TEXT},
    "response.refusal.delta": {**IN_CONTENT, "delta": TEXT},
    "response.refusal.done": {**IN_CONTENT, "refusal": TEXT},
    "response.reasoning.delta": {**IN_CONTENT, "delta": TEXT},
    "response.reasoning.done": {**IN_CONTENT, "text": TEXT},
    "response.reasoning_summary_part.added": {**IN_SUMMARY, "part": PART},
    "response.reasoning_summary_part.done": {**IN_SUMMARY, "part": PART},
    "response.reasoning_summary_text.delta": {**IN_SUMMARY, "delta": TEXT},
    "response.reasoning_summary_text.done": {**IN_SUMMARY, "text": TEXT},
    "response.output_text.annotation.added": {
        **IN_CONTENT,
        "annotation_index": WHOLE,
        "annotation": or_null(ref("Annotation")),
    },
    "response.function_call_arguments.delta": {**IN_CALL, "delta": TEXT},
    "response.function_call_arguments.done": {**IN_CALL, "arguments": TEXT},
    "error": {"error": ref("ErrorPayload")},
}
_DEFINITIONS = PARTS | ITEMS | OBJECTS | {name: _event(name, **fields) for name, fields in EVENTS.items()}
_VALIDATORS = {
    name: jsonschema_rs.validator_for({**schema, "$defs": _DEFINITIONS})
    for name, schema in _DEFINITIONS.items()
}


def violations(name: str, value: Any) -> list[str]:
    """Return what is wrong with `value` as an object of this name: one of `OBJECTS`, or an event's type."""
    if name not in _VALIDATORS:
        return [f"the specification has no {name}"]
    return [f"{name}: {error.message}" for error in _VALIDATORS[name].iter_errors(value)]


def event_violations(event: dict[str, Any]) -> list[str]:
    """Return what is wrong with a streaming event."""
    return violations(str(event.get("type")), event)
