"""Requests with images in every dialect, and across the deaths of the engine and of the gateway."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import struct
import zlib
from collections.abc import Callable
from typing import Any

import ollama
import pytest

from tests.services.streams import Stream, frames_of, text_of_frames

MODEL = "eyes"


def png(width: int, height: int, filling: bytes = b"") -> str:
    """Return the base64 of a PNG file that announces this size; its pixels are not looked at here."""
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(b"\0") + filling, b"IEND"]
    framed = (
        struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(framed)).decode()


IMAGE, OTHER = png(3, 4), png(4, 3)


@pytest.fixture(scope="module")
def gateway(make_gateway: Callable[..., Any]) -> Any:
    made = make_gateway(VESTAL_MLX__MAX_IMAGES="3", VESTAL_MLX__MAX_BODY_BYTES=str(24 * 1024 * 1024))
    folder = made.home / "found" / MODEL
    shutil.copytree(made.home / "found" / "chat", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_vl", "vision_config": {}}))
    (folder / "preprocessor_config.json").write_text("{}")
    tensors = {"w": [0, 16], "visual.patch_embed.proj.weight": [16, 32]}
    described = {name: {"dtype": "F32", "shape": [2, 2], "data_offsets": at} for name, at in tensors.items()}
    header = json.dumps(described).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(32))
    return made.start().until_ok()


def url(image: str) -> str:
    return f"data:image/jpeg;base64,{image}"  # the declared type is wrong, and nobody relies on it


def openai(text: str, *images: str, **more: Any) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url(image), "detail": "low"}} for image in images]
    return _messages([*parts, {"type": "text", "text": text}], **more)


def anthropic(text: str, *images: str, **more: Any) -> dict[str, Any]:
    sources = ({"type": "base64", "media_type": "image/png", "data": image} for image in images)
    return _messages(
        [*({"type": "image", "source": each} for each in sources), {"type": "text", "text": text}], **more
    )


def responses(text: str, *images: str, **more: Any) -> dict[str, Any]:
    parts = [{"type": "input_image", "image_url": url(image)} for image in images]
    content = [*parts, {"type": "input_text", "text": text}]
    return {"model": MODEL, "input": [{"role": "user", "content": content}], **more}


def chat(text: str, *images: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text, "images": images}], **more}


def generate(text: str, *images: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": text, "images": images, **more}


def _messages(content: list[Any], **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 5000, **more}


ROUTES: dict[str, Callable[..., dict[str, Any]]] = {
    "/v1/chat/completions": openai,
    "/v1/messages": anthropic,
    "/v1/responses": responses,
    "/api/chat": chat,
    "/api/generate": generate,
}


def prompt(text: str, *images: str) -> str:
    """Return the prompt as the fake engine reads it."""
    return text + "".join(f" image{zlib.crc32(image.encode())}" for image in images)


@pytest.mark.parametrize("path", ROUTES)
def test_images_of_a_request_reach_the_next_engine_too_if_the_first_dies(gateway, text_of, path):
    """The second engine gets the same images, since the answer that it continues depends on them."""
    order = f"{path} tokens=12 die_at=5 once=1".replace("/", "_")
    body = ROUTES[path](order, IMAGE, OTHER, stream=True)
    gateway.until(lambda: not (gateway.home / "die_at5").unlink(missing_ok=True), "the engine may die again")
    stream = Stream(gateway.http, path, body)
    stream.join()
    assert text_of_frames(stream.frames) == text_of(prompt(order, IMAGE, OTHER), 12)
    assert (gateway.home / "die_at5").exists(), "an engine died of it"


def test_answer_about_an_image_continues_after_a_gateway_kill_and_is_found_by_its_key(gateway, text_of):
    order = "goes on tokens=40 step_ms=30"
    streams = {
        path: Stream(gateway.http, path, make(order, IMAGE, stream=True), **{"Idempotency-Key": path})
        for path, make in ROUTES.items()
    }
    for stream in streams.values():
        stream.until(7)
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.process.wait()
    for stream in streams.values():
        stream.join()
    gateway.start()
    gateway.until(gateway.health, "the next gateway answers")
    for path, stream in streams.items():
        whole = gateway.http.get(f"/v1/streams/{stream.id}").content
        assert text_of_frames(frames_of(whole)) == text_of(prompt(order, IMAGE), 40), path
        key = {"Idempotency-Key": path}
        same = gateway.http.post(path, json=ROUTES[path](order, IMAGE, stream=True), headers=key)
        assert same.headers["x-request-id"] == stream.id
        other = gateway.http.post(path, json=ROUTES[path](order, OTHER, stream=True), headers=key)
        assert other.status_code == 409, "another image is another body"


def test_prompt_of_a_response_that_continues_an_earlier_response_includes_its_image(gateway, text_of):
    first = gateway.http.post("/v1/responses", json=responses("tokens=2", IMAGE)).json()
    body = responses("tokens=3", OTHER, previous_response_id=first["id"])
    second = gateway.http.post("/v1/responses", json=body).json()
    assert second["output"][-1]["content"][0]["text"] == text_of(prompt("tokens=3", IMAGE, OTHER), 3)


def test_token_counting_routes_accept_images(gateway):
    for path, make, field in (
        ("/v1/messages/count_tokens", anthropic, "input_tokens"),
        ("/v1/responses/input_tokens", responses, "input_tokens"),
        ("/apply-template", openai, "prompt"),
    ):
        answer = gateway.http.post(path, json=make("how many", IMAGE))
        assert answer.status_code == 200 and answer.json()[field] in (7, "a" * 7)


@pytest.mark.parametrize(
    ("images", "code", "reason"),
    [
        (["%%"], "invalid_request", "is not base64"),
        ([base64.b64encode(b"%PDF-1.7 ...").decode()], "invalid_request", "is not a PNG"),
        ([png(9000, 9000)], "invalid_request", "9000 x 9000 pixels, and 50000000 are the most"),
        ([IMAGE] * 4, "invalid_request", "may hold 3 images"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_image_that_is_invalid_or_too_large_is_a_400_in_the_error_format_of_the_api(
    gateway, path, images, code, reason
):
    answer = gateway.http.post(path, json=ROUTES[path]("hello", *images))
    error = answer.json()["error"]
    assert (
        answer.status_code == 400
        and reason in error["message"]
        and code in (error.get("code"), error["type"])
    )
    if path == "/v1/chat/completions":
        assert error["param"].startswith("messages.0.content.")


def test_image_for_a_text_model_and_image_by_url_are_refused_with_the_remedy(gateway):
    refused = gateway.http.post("/api/chat", json=chat("hello", IMAGE) | {"model": "chat"})
    assert (refused.status_code, "reads text only" in refused.json()["error"]) == (400, True)
    body = openai("hello", IMAGE)
    body["messages"][0]["content"][0]["image_url"]["url"] = "https://example.com/a.png"
    refused = gateway.http.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400 and "mlx.image_urls" in refused.json()["error"]["message"]


def test_images_given_to_ollamas_python_client_as_bytes_and_as_files_reach_the_model(
    gateway, text_of, tmp_path
):
    file = tmp_path / "other.png"
    file.write_bytes(base64.b64decode(OTHER))
    images = [base64.b64decode(IMAGE), file]
    with ollama.Client(host=gateway.url) as client:
        chat = client.chat(MODEL, [{"role": "user", "content": "tokens=3", "images": images}])
        made = client.generate(MODEL, "tokens=3", images=images)
    assert chat.message.content == made.response == text_of(prompt("tokens=3", IMAGE, OTHER), 3)


def test_vision_capability_is_shown_only_for_a_model_that_reads_images(gateway):
    shown = gateway.http.post("/api/show", json={"model": MODEL}).json()
    assert "vision" in shown["capabilities"]
    assert "vision" not in gateway.http.post("/api/show", json={"model": "chat"}).json()["capabilities"]
