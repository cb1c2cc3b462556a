"""Check the items of `input`, and convert them to the form in which they are stored and listed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mlx_server.gateway.dialects.bodies import Body, ListOf, validated
from mlx_server.gateway.errors import BadRequest, NotFound

Item = dict[str, Any]
"""An item in the API's form: a message, a function call, the output of a function, reasoning, or a
compaction."""


class Part(Body):
    """One part of a message's content, or of a function's output."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    filename: str | None = None
    file_data: str | None = None
    file_url: str | None = None


class MessageItem(Body):
    role: Annotated[str, Field(max_length=64), AfterValidator(str.lower)]
    content: str | ListOf[Part]
    phase: str | None = None


class FunctionCallItem(Body):
    call_id: str
    name: str
    arguments: str


class CustomCallItem(Body):
    call_id: str
    name: str
    input: str


class OutputItem(Body):
    call_id: str
    output: str | ListOf[Part]


class ReasoningItem(Body):
    summary: ListOf[Part] | None = None
    content: ListOf[Part] | None = None
    encrypted_content: str | None = None


class CompactionItem(Body):
    encrypted_content: str


_MODELS: dict[str, type[Body]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": OutputItem,
    "custom_tool_call": CustomCallItem,
    "custom_tool_call_output": OutputItem,
    "reasoning": ReasoningItem,
    "compaction": CompactionItem,
}
_ID_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "cto",
    "reasoning": "rs",
    "compaction": "cmp",
}
_PART_DEFAULTS: dict[str, Item] = {"output_text": {"annotations": []}, "input_image": {"detail": "auto"}}
MAX_ID_LENGTH = 512
CALLS = ("function_call", "custom_tool_call")
OUTPUTS = ("function_call_output", "custom_tool_call_output")


@dataclass
class InputItems:
    """The checked items, and the types of the items that were left out because they are not supported."""

    items: list[Item] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(item["id"] for item in self.items)


def read_input(
    given: str | Sequence[Item] | None,
    earlier: Iterable[Item],
    new_id: Callable[[str], str],
    stored_item: Callable[[str], Item | None],
) -> InputItems:
    """Check `given`, the value of the body's field `input`, and return its items in the form in which they
    are stored. A string stands for one message of the user, and None for no items. Raises BadRequest if an
    item is wrong, and NotFound if a reference names an unknown item.

    `earlier` are the items of the conversation before the input. They are not returned, but the input may
    hold the outputs of their tool calls. `new_id` returns a new id that begins with the given prefix.
    `stored_item` returns the item that an `item_reference` names, or None.
    """
    if given is None:
        return InputItems()
    if isinstance(given, str):
        given = [{"type": "message", "role": "user", "content": given}]
    read = InputItems()
    call_ids = {item["call_id"] for item in earlier if item["type"] in CALLS}
    for number, item in enumerate(given):
        where = f"input.{number}"
        item_type = _type_of(item, where)
        if item_type == "item_reference":
            read.items.append(_referenced(item, where, stored_item))
        elif item_type in _MODELS:
            read.items.append(_kept(item, item_type, where, new_id))
        else:
            read.skipped.append(item_type)
            continue
        _check_call_id(read.items[-1], where, call_ids)
    return read


def referenced_ids(given: str | Sequence[Item] | None) -> list[str]:
    """Return the ids of the stored items that `given`, the value of the body's field `input`, refers to, each
    one once.
    """
    if given is None or isinstance(given, str):
        return []
    ids = [item.get("id") for item in given if _is_reference(item)]
    return list(dict.fromkeys(item_id for item_id in ids if isinstance(item_id, str)))


def _is_reference(item: Item) -> bool:
    if item.get("type") is None:
        return "id" in item and set(item) <= {"type", "id"}
    return bool(item["type"] == "item_reference")


def _type_of(item: Item, where: str) -> str:
    item_type = item.get("type")
    if isinstance(item_type, str):
        return "compaction" if item_type == "compaction_summary" else item_type
    if item_type is not None:
        raise _wrong(f"{where}.type", "should be a string")
    if "role" in item:
        return "message"
    if _is_reference(item):
        return "item_reference"
    raise _wrong(f"{where}.type", "is missing")


def _kept(item: Item, item_type: str, where: str, new_id: Callable[[str], str]) -> Item:
    """Check an item, and return the form in which it is stored: its known fields, with an id, a status, and
    content as a list of parts. An item without a usable id gets `new_id(prefix)`, where the prefix stands for
    its type. `where` is the item's path in the body, for the error message. Raises BadRequest if a field is
    wrong.
    """
    try:
        checked = validated(item, _MODELS[item_type])
    except BadRequest as error:
        raise _wrong(f"{where}.{error.message}") from error
    item_id = item.get("id")
    is_named = isinstance(item_id, str) and 0 < len(item_id) <= MAX_ID_LENGTH
    kept: Item = {"type": item_type, "id": item_id if is_named else new_id(_ID_PREFIXES[item_type])}
    kept |= {"status": "completed", **checked.model_dump(exclude_none=True)}
    if isinstance(checked, MessageItem):
        if isinstance(checked.content, str):
            text_type = "output_text" if checked.role == "assistant" else "input_text"
            kept["content"] = [{"type": text_type, "text": checked.content}]
        kept["content"] = [_PART_DEFAULTS.get(part["type"], {}) | part for part in kept["content"]]
    if item_type == "reasoning":
        kept.setdefault("summary", [])
    return kept


def _referenced(item: Item, where: str, stored_item: Callable[[str], Item | None]) -> Item:
    item_id = item.get("id")
    if not isinstance(item_id, str):
        raise _wrong(f"{where}.id", "should be a string")
    found = stored_item(item_id)
    if found is None:
        message = (
            f"{where}.id: Item {item_id[:80]!r} was not found: it was never stored here, was deleted, or is "
            "too old; send the item itself."
        )
        raise NotFound("item_not_found", message, param=f"{where}.id")
    return found


def _check_call_id(item: Item, where: str, call_ids: set[str]) -> None:
    """If the item is a tool call, add its `call_id` to `call_ids`. If the item is the output of a tool call,
    raise BadRequest unless its `call_id` is in `call_ids`. `where` is the item's path in the body.
    """
    if item["type"] in CALLS:
        call_ids.add(item["call_id"])
    elif item["type"] in OUTPUTS and item["call_id"] not in call_ids:
        raise _wrong(
            f"{where}.call_id",
            f"no call has the id {item['call_id'][:80]!r}; send the call before its output, or name the "
            "response that made it in previous_response_id",
        )


def _wrong(where: str, what: str = "") -> BadRequest:
    return BadRequest("invalid_request", f"{where}: {what}" if what else where, param=where.partition(":")[0])
