"""What `videollama serve` puts before an engine, without one; `serving/` tests it with the engines."""

import asyncio
import json

import pytest

from transformers_videollama.cli import main
from transformers_videollama.serving.limits import CHAT, HEALTH, RequestLimits
from transformers_videollama.serving.schema import check_request


CONTENT = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    {"type": "video_url", "video_url": {"url": "https://example.com/clip.mp4"}},
    {"type": "audio_url", "audio_url": {"url": "https://example.com/sound.wav"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "text", "text": "What is this?"},
]


def body(content=None, **options) -> dict:
    return {"messages": [{"role": "user", "content": CONTENT if content is None else content}], **options}


async def echo(scope, receive, send):
    """Answers with the body that it was sent."""
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


async def never(scope, receive, send):
    await asyncio.sleep(60)


async def half(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(60)


def post(app, *pieces: bytes, path: str = CHAT, **limits):
    """-> status, body, and how many pieces of the request were read"""
    left, sent = list(pieces), []

    async def receive():
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    limited = RequestLimits(app, **{"max_bytes": 2000, "seconds": 5, **limits})
    asyncio.run(limited({"type": "http", "path": path}, receive, send))
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent), len(pieces) - len(left)


def test_a_good_request_arrives_whole():
    sent = json.dumps(body()).encode()
    assert post(echo, sent[:100], sent[100:]) == (200, sent, 2)


def test_what_is_too_large_is_not_read_to_its_end():
    status, answer, read = post(echo, *[b"x" * 999] * 10)
    assert (status, read) == (413, 3)
    assert json.loads(answer)["error"]["message"] == "the request has more than 2000 bytes"


def test_other_paths():
    assert post(echo, b"anything", path=HEALTH) == (200, b"anything", 1)
    status, answer, read = post(echo, b"{}", path="/load_model")
    assert (status, read) == (404, 0)
    assert "/v1/chat/completions" in json.loads(answer)["error"]["message"]


def test_what_takes_too_long_is_ended():
    sent = json.dumps(body()).encode()
    status, answer, _ = post(never, sent, seconds=0.1)
    assert status == 504
    assert json.loads(answer)["error"]["message"] == "no answer within 0.1 s; ask for less"
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):  # an answer that has begun can only be broken off
        post(half, sent, seconds=0.1)


def test_good_requests_pass():
    check_request(body())
    check_request(body("What is this?", chat_template_kwargs={"num_frames": 16}, stream=True))


@pytest.mark.parametrize(
    "request_body,match",
    (
        ([], "'messages', a list"),
        ({"messages": []}, "at least one message"),
        ({"messages": ["Hello"]}, r"messages\[0\]: got the message 'Hello', expected a dict with 'role'"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "got the role 'tool', expected one of system, user, assistant",
        ),
        (body(7), r"messages\[0\]: got the content 7, expected a string or a list of blocks"),
        (body(["x"]), r"messages\[0\], block 0: got the block 'x', expected a dict with 'type'"),
        (body([{"type": "file"}]), "block 0: got the type 'file', expected one of text, image_url"),
        (body([*CONTENT, {"type": "text"}]), "block 5: got the text None, expected a string"),
        (
            body([{"type": "video_url", "video_url": {"path": "x"}}]),
            "block 0: got {'path': 'x'}, expected a dict with 'url'",
        ),
        (body([{"type": "image_url", "image_url": None}]), "the image is missing"),
        (
            body([{"type": "input_audio", "input_audio": {"format": "wav"}}]),
            "expected a dict with 'url', or with 'data'",
        ),
        (body([{"type": "video_url", "video_url": {"url": 7}}]), "the video is missing; expected 'video_url'"),
        (body([{"type": "video", "path": "x"}]), "got the type 'video', expected one of text, image_url"),
        (body([{"type": "image_url", "image_url": {"url": "x"}, "path": "y"}]), "and no other source"),
        ({"messages": [{"role": "user", "content": None}]}, "got no content"),
        (body(chat_template_kwargs={"chat_template": "{{ 1 }}"}), r"got \['chat_template'\]"),
    ),
)
def test_malformed_requests_are_refused_with_the_place(request_body, match):
    with pytest.raises(ValueError, match=match):
        check_request(request_body)
    status, answer, _ = post(echo, json.dumps(request_body).encode())
    assert status == 400
    assert len(json.loads(answer)["error"]["message"]) > 20


def test_options_that_only_vllm_takes(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--", "--enforce-eager"])
    assert "only vLLM takes further options" in capsys.readouterr().err
