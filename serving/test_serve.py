"""`videollama serve`, asked over loopback by OpenAI's client."""

import asyncio
import base64
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import openai
import pytest
from crashing import HOSTILE, make_workers_crash
from made_adapters import save_adapter
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

from transformers_videollama import TINY_CHECKPOINT

from . import server as servers
from .media import MAX_TOKENS, Request
from .server import block, data_address


MODEL = str(TINY_CHECKPOINT)


VLLM_OPTIONS = ["--enforce-eager", "--max-model-len", "512", "--trust-request-mm-kwargs"]


@pytest.fixture(scope="module", params=("transformers", "vllm"))
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def server(engine, tmp_path_factory):
    """Its workers crash over a hostile file."""
    port = servers.free_port()
    command = [str(Path(sys.executable).with_name("videollama")), "serve", "--engine", engine, "--port", str(port)]
    command += ["--dtype", "float32", "--max-upload", "4"]
    if engine == "vllm":
        command += ["--", *VLLM_OPTIONS]
    folder = tmp_path_factory.mktemp("server")
    environment = {**os.environ, "PYTHONPATH": make_workers_crash(folder)}
    with servers.running(command, port, folder / "log.txt", environment) as address:
        yield address


@pytest.fixture(scope="module")
def ask(engine):
    """Asks the model; each engine has its own word for the number of frames."""

    async def ask(client: openai.AsyncOpenAI, messages: list[dict], num_frames: int | None = None, **options):
        template_options: dict = {"add_timestamps": False}
        extra: dict = {"chat_template_kwargs": template_options}
        if num_frames is not None and engine == "vllm":
            extra["media_io_kwargs"] = {"video": {"num_frames": num_frames}}
        elif num_frames is not None:
            template_options["num_frames"] = num_frames
        return await servers.ask(client, MODEL, messages, extra, **options)

    return ask


def silent(requests: list) -> list:
    """Those that mean the same here, where the sound of a video is heard without being asked for."""
    return [r for r in requests if all(kind != "video" or path.stem == "silent" for kind, path in r.media)]


def with_own_sound(requests: list) -> list:
    """Those about a video and its own sound: here, one block."""
    return [r for r in requests if len(r.media) == 2 and r.media[0][1] == r.media[1][1]]


def test_videos_bring_their_sound(engine, server, ask, requests):
    if engine == "vllm":
        pytest.skip("vLLM wants the sound of a video as a block of its own")
    asked = with_own_sound(requests)
    assert len(asked) == 2

    async def ask_all():
        async with servers.client(server) as client:
            alone = [Request(r.question, r.media[1:]).messages(data_address) for r in asked]
            return await asyncio.gather(*(ask(client, messages) for messages in alone))

    for request, response in zip(asked, asyncio.run(ask_all()), strict=True):
        assert response.choices[0].message.content.strip() == request.answer.strip()


def test_streamed(server, ask, requests):
    request = next(request for request in silent(requests) if request.media)

    async def read() -> list[str]:
        async with servers.client(server) as client:
            stream = await ask(client, request.messages(data_address), stream=True)
            return [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]

    pieces = asyncio.run(read())
    assert len(pieces) > 3
    assert "".join(pieces).strip() == request.answer.strip()


def test_the_model_is_listed(server):
    async def models():
        async with servers.client(server) as client:
            return [model.id async for model in client.models.list()]

    assert asyncio.run(models()) == [MODEL]


@pytest.fixture
def deaf_checkpoint(tmp_path) -> Path:
    """The tiny model without its audio branch."""
    config = AutoConfig.from_pretrained(MODEL, audio_config=None, audio_vision_config=None)
    AutoModelForMultimodalLM.from_pretrained(MODEL, config=config).save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(MODEL, num_audio_tokens=0, load_audio_from_video=False)
    processor.save_pretrained(tmp_path)
    processor.video_processor.save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_without_audio_branch_sees_videos_that_have_sound(deaf_checkpoint, media, tmp_path_factory):
    port = servers.free_port()
    command = [str(Path(sys.executable).with_name("videollama")), "serve", "--model", str(deaf_checkpoint)]
    content = [block("video", data_address(media["bell"])), {"type": "text", "text": "What do you see?"}]
    question = [{"role": "user", "content": content}]

    async def ask_once(address):
        async with servers.client(address) as client:
            return await servers.ask(client, str(deaf_checkpoint), question)

    with servers.running([*command, "--port", str(port)], port, tmp_path_factory.mktemp("log") / "log.txt") as address:
        answer = asyncio.run(ask_once(address)).choices[0].message.content
    assert answer.startswith("I see")


def test_an_adapter_is_served_under_the_name_of_its_model(requests, encode, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    model = save_adapter(TINY_CHECKPOINT, folder)
    request = next(request for request in silent(requests) if request.media)
    inputs = encode(request)
    generated = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_TOKENS)
    (expected,) = processor.post_process_image_text_to_text(generated[:, inputs["input_ids"].shape[1] :])
    port = servers.free_port()
    command = [str(Path(sys.executable).with_name("videollama")), "serve", "--dtype", "float32"]
    command += ["--adapter", str(folder), "--port", str(port)]

    async def ask_once(address):
        async with servers.client(address) as client:
            extra = {"chat_template_kwargs": {"add_timestamps": False}}
            return await servers.ask(client, MODEL, request.messages(data_address), extra)

    with servers.running(command, port, folder / "log.txt") as address:
        answer = asyncio.run(ask_once(address)).choices[0].message.content
    assert answer.strip() == expected.strip() != request.answer.strip()


def malformed(media: dict) -> dict[str, list[dict]]:
    whole = media["bell"].read_bytes()
    cut = f"data:video/mp4;base64,{base64.b64encode(whole[: len(whole) // 2]).decode()}"
    return {
        "local file": [block("video", media["bell"].as_uri())],
        "local path": [block("video", str(media["bell"]))],
        "private address": [block("video", "http://127.0.0.1:9/clip.mp4")],
        "metadata of a cloud": [block("image", "http://169.254.169.254/latest/meta-data")],
        "not a video": [block("video", "data:video/mp4;base64,bm90IGEgdmlkZW8=")],
        "not base64": [block("image", "data:image/png;base64,@@@")],
        "cut": [block("video", cut)],
        "crash of the decoder": [block("image", f"data:image/gif;base64,{base64.b64encode(HOSTILE).decode()}")],
        "no sound": [block("audio", data_address(media["silent"]))],
        "no address": [{"type": "video_url", "video_url": {}}],
        "unknown block": [{"type": "file", "file": {"file_id": "x"}}],
    }


def test_fifty_at_once_of_which_eleven_are_bad(server, ask, media, requests):
    good = (silent(requests) * 5)[:39]
    text = {"type": "text", "text": "What do you see?"}
    bad = [[{"role": "user", "content": [*content, text]}] for content in malformed(media).values()]
    order = np.random.default_rng(0).permutation(len(good) + len(bad))

    async def ask_all():
        async with servers.client(server) as client:
            asked = [ask(client, r.messages(data_address), r.num_frames) for r in good]
            asked += [ask(client, messages) for messages in bad]
            shuffled = await asyncio.gather(*(asked[i] for i in order), return_exceptions=True)
            return [shuffled[i] for i in np.argsort(order)]

    responses = asyncio.run(ask_all())
    for request, response in zip(good, responses[:39], strict=True):
        assert response.choices[0].message.content.strip() == request.answer.strip(), request
    for messages, refusal in zip(bad, responses[39:], strict=True):
        assert isinstance(refusal, openai.BadRequestError), (messages, refusal)
        assert len(refusal.body["message"]) > 20


def _post(address: str, body: bytes) -> tuple[int, dict]:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize(
    "path,body,status",
    (
        ("/chat/completions", b"{", 400),
        ("/chat/completions", b'{"messages": []}', 400),
        ("/chat/completions", b'{"messages": [{"role": "user"}]}', 400),
        ("/chat/completions", b'{"messages": [{"role": "user", "content": "' + b"x" * (4 << 20) + b'"}]}', 413),
        ("/responses", b'{"input": "Hello"}', 404),
    ),
    ids=("no json", "no message", "no content", "too large", "another place"),
)
def test_what_is_no_request_is_refused(server, path, body, status):
    found, answer = _post(server + path, body)
    assert found == status
    assert len(answer["error"]["message"]) > 20


def test_more_frames_than_positions_are_refused(server, ask, media):
    content = [block("video", data_address(media["foreign"])), {"type": "text", "text": "What do you see?"}]

    async def too_many():
        async with servers.client(server) as client:
            return await ask(client, [{"role": "user", "content": content}], 33)

    with pytest.raises(openai.BadRequestError, match="33"):
        asyncio.run(too_many())
