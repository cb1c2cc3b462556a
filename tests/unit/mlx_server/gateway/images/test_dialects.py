"""Images in the bodies of every dialect become parts of messages and files, in the same order."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mlx_server.gateway.dialects.anthropic.schema import MessagesBody
from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.llama_cpp.schema import ApplyTemplateBody
from mlx_server.gateway.dialects.ollama import schema as ollama
from mlx_server.gateway.dialects.openai.schema import ChatBody
from mlx_server.gateway.dialects.responses.creation import translate
from mlx_server.gateway.dialects.responses.schema import CreateBody
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.files import ImageLimits
from mlx_server.gateway.images.reader import IMAGE, ImageReader
from mlx_server.gateway.requests.model_requests import GenerationRequest
from tests.unit.mlx_server.gateway.images.test_headers import saved

FILES = [base64.b64encode(saved("PNG", (8, 1 + n))).decode() for n in range(3)]
URLS = [f"data:image/png;base64,{each}" for each in FILES]
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def sees(limits: ImageLimits | None = None) -> ImageReader:
    return ImageReader("m", limits, reads_images=True)


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def openai(content: Any, *more: Any) -> GenerationRequest:
    body = validated({"model": "m", "messages": [{"role": "user", "content": content}, *more]}, ChatBody)
    return body.to_requests("m", 1, sees())[0]


def anthropic(content: Any, *more: Any) -> GenerationRequest:
    messages = [{"role": "user", "content": content}, *more]
    body = validated({"model": "m", "messages": messages, "max_tokens": 5}, MessagesBody)
    return body.to_request("m", 1, sees())


def chat(*messages: Any, reader: ImageReader | None = None) -> GenerationRequest:
    return validated({"model": "m", "messages": list(messages)}, ollama.ChatBody).to_request(
        "m", 1, reader or sees()
    )


def generate(reader: ImageReader | None = None, **fields: Any) -> GenerationRequest:
    return validated({"model": "m", **fields}, ollama.GenerateBody).to_request("m", 1, reader or sees())


def responses(items: list[Any], reader: ImageReader | None = None) -> GenerationRequest:
    body = validated({"model": "m", "input": items}, CreateBody)
    return translate(body, "m", 1, images=reader or sees()).request


def image_part(number: int, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": URLS[number], **more}}


def block(number: int) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": FILES[number]}}


def input_image(number: int) -> dict[str, Any]:
    return {"type": "input_image", "image_url": URLS[number], "detail": "high"}


@pytest.mark.parametrize(
    "request_",
    [
        openai([text("Compare "), image_part(0, detail="low"), text(" with "), image_part(1), text(".")]),
        openai(
            [
                text("Compare "),
                {"type": "image_url", "image_url": URLS[0]},
                text(" with "),
                image_part(1),
                text("."),
            ]
        ),
        anthropic([text("Compare "), block(0), text(" with "), block(1), text(".")]),
        responses(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Compare "},
                        input_image(0),
                        {"type": "input_text", "text": " with "},
                        input_image(1),
                        {"type": "input_text", "text": "."},
                    ],
                }
            ]
        ),
    ],
    ids=["openai", "openai with a plain string", "anthropic", "responses"],
)
def test_images_in_a_message_stay_where_the_client_put_them(request_: GenerationRequest):
    parts = [text("Compare "), IMAGE, text(" with "), IMAGE, text(".")]
    assert request_.messages == ({"role": "user", "content": parts},)
    assert request_.images == (FILES[0], FILES[1])
    assert request_.operation().images == request_.images  # type: ignore[union-attr]


def test_images_of_earlier_turns_stay_in_their_messages():
    earlier = [
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [image_part(1), text("This?")]},
    ]
    request = openai([image_part(0), text("What is it?")], *earlier)
    assert request.images == (FILES[0], FILES[1])
    assert [message["content"] for message in request.messages or ()] == [
        [IMAGE, text("What is it?")],
        "A cat.",
        [IMAGE, text("This?")],
    ]


def test_ollama_images_come_before_the_text_of_their_message():
    request = chat(
        {"role": "user", "content": "Look.", "images": FILES[:2]}, {"role": "assistant", "content": "Yes."}
    )
    assert request.messages and request.messages[0]["content"] == [IMAGE, IMAGE, text("Look.")]
    made = generate(prompt="Look.", system="Be brief.", images=[FILES[0]])
    assert (made.kind, made.images) == ("chat", (FILES[0],))
    assert made.messages and made.messages[1] == {"role": "user", "content": [IMAGE, text("Look.")]}
    assert generate(images=[FILES[0]]).messages == ({"role": "user", "content": [IMAGE]},)


@pytest.mark.parametrize("fields", [{"raw": True}, {"suffix": "end"}, {"template": "{{ .Prompt }}"}])
def test_ollama_generate_that_bypasses_the_models_template_refuses_images(fields: dict[str, Any]):
    with pytest.raises(BadRequest, match="chat template"):
        generate(prompt="Look.", images=[FILES[0]], **fields)


def test_image_in_a_tool_result_moves_into_the_users_next_message():
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [text("shot: "), block(1)]}
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {}}]}
    request = anthropic([block(0)], call, {"role": "user", "content": [result, text("Well?"), block(2)]})
    assert request.images == tuple(FILES)
    messages = request.messages or ()
    assert messages[2]["content"] == "shot: \n[The image that stood here follows below.]\n"
    assert messages[3] == {"role": "user", "content": [IMAGE, text("Well?"), IMAGE]}


@pytest.mark.parametrize("dialect", ["openai", "responses"])
def test_image_in_the_last_tool_result_gets_a_user_message_of_its_own(dialect: str):
    if dialect == "openai":
        call = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
        request = openai("Look.", call, {"role": "tool", "tool_call_id": "c1", "content": [image_part(0)]})
    else:
        called = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
        output = {"type": "function_call_output", "call_id": "c1", "output": [input_image(0)]}
        request = responses([{"role": "user", "content": "Look."}, called, output])
    assert request.images == (FILES[0],)
    assert (request.messages or ())[-1] == {"role": "user", "content": [IMAGE]}


def test_image_in_an_assistant_message_becomes_a_sentence():
    request = openai(
        "Hi.", {"role": "assistant", "content": [image_part(0)]}, {"role": "user", "content": "Go on."}
    )
    assert not request.images and "part of type image_url" in (request.messages or ())[1]["content"]


def test_apply_template_and_token_count_requests_include_the_images():
    body = {"messages": [{"role": "user", "content": [image_part(0), text("Hi.")]}]}
    assert validated(body, ApplyTemplateBody).to_request("m", sees()).images == (FILES[0],)
    counted = validated(
        {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [block(0)]}]}, MessagesBody
    )
    assert counted.to_count("m", sees()).images == (FILES[0],)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (
            lambda wrong: openai([text("a"), {"type": "image_url", "image_url": {"url": wrong}}]),
            "messages.0.content.1.image_url",
        ),
        (
            lambda wrong: anthropic([{"type": "image", "source": {"type": "base64", "data": wrong}}]),
            "messages.0.content.0.source",
        ),
        (lambda wrong: chat({"role": "user", "images": [FILES[0], wrong]}), "messages.0.images.1"),
        (lambda wrong: generate(prompt="a", images=[wrong]), "images.0"),
    ],
)
@pytest.mark.parametrize(
    "wrong", ["", "%%", "data:image/png;base64,AAAA", "https://example.com/a.png", "/etc/passwd"]
)
def test_broken_image_is_answered_with_400_and_the_name_of_its_field(make, field: str, wrong: str):
    with pytest.raises(BadRequest) as refused:
        make(wrong)
    assert refused.value.fields["field"] == field


def test_images_by_file_id_are_refused_because_there_is_no_files_api():
    with pytest.raises(BadRequest, match="no files API"):
        responses([{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}])
    with pytest.raises(BadRequest, match="no files API"):
        anthropic([{"type": "image", "source": {"type": "file", "file_id": "file-1"}}])
    with pytest.raises(BadRequest, match="reads text and images only; leave out the part of type 'file'"):
        openai([{"type": "file", "file": {"file_id": "file-1"}}])


def test_request_with_more_images_than_allowed_is_refused():
    with pytest.raises(BadRequest, match=r"may hold 2 images \(mlx.max_images\)"):
        chat({"role": "user", "images": FILES}, reader=sees(ImageLimits(max_images=2)))


def test_image_for_a_vision_model_of_an_unsupported_family_is_refused_with_the_reason():
    reader = ImageReader("m", reason="images are not served here for models of the family brand_new_vl")
    with pytest.raises(
        BadRequest, match="reads text only here, as images are not served here for models of the family"
    ) as refused:
        chat({"role": "user", "content": "a", "images": [FILES[0]]}, reader=reader)
    assert refused.value.code == "not_supported"
