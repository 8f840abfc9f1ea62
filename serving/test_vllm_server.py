"""vLLM's server, asked over loopback by OpenAI's client."""

import asyncio
import base64
import sys
from pathlib import Path

import openai
import pytest

from transformers_videollama import TINY_CHECKPOINT

from . import server as servers
from .server import block, data_address


@pytest.fixture(scope="module")
def server(media, tmp_path_factory):
    """Address of a server that opens files of one folder alone."""
    port = servers.free_port()
    options = {
        "--model": str(TINY_CHECKPOINT),
        "--served-model-name": "tiny",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": "float32",
        "--allowed-local-media-path": str(media["bell"].parent),
        "--max-model-len": "512",
        "--limit-mm-per-prompt": '{"image": 2, "video": 2, "audio": 2}',
    }
    # What `vllm serve` starts; that command itself does not find its version in the build for CPUs
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--enforce-eager", "--trust-request-mm-kwargs"]  # requests say how many frames they want
    command += [word for option in options.items() for word in option]
    with servers.running(command, port, tmp_path_factory.mktemp("server") / "log.txt") as address:
        yield address


async def _ask(client: openai.AsyncOpenAI, messages: list[dict], num_frames: int | None = None, **options):
    extra = {} if num_frames is None else {"media_io_kwargs": {"video": {"num_frames": num_frames}}}
    return await servers.ask(client, "tiny", messages, extra, **options)


def test_requests_at_once(server, requests, encode):
    """20 requests of every kind; prompts are as long as the processor's, and answers those of `generate`."""

    async def ask_all():
        async with servers.client(server) as client:
            return await asyncio.gather(*(_ask(client, r.messages(data_address), r.num_frames) for r in requests))

    for request, response in zip(requests, asyncio.run(ask_all()), strict=True):
        assert response.choices[0].message.content.strip() == request.answer.strip(), request
        assert response.usage.prompt_tokens == encode(request)["input_ids"].shape[1], request


def test_files_of_the_folder(server, requests):
    request = next(request for request in requests if request.media)

    async def ask():
        async with servers.client(server) as client:
            return await _ask(client, request.messages())

    assert asyncio.run(ask()).choices[0].message.content.strip() == request.answer.strip()


def test_streamed(server, requests):
    request = next(request for request in requests if request.media)

    async def ask() -> list[str]:
        async with servers.client(server) as client:
            stream = await _ask(client, request.messages(data_address), stream=True)
            return [chunk.choices[0].delta.content or "" async for chunk in stream]

    pieces = asyncio.run(ask())
    assert len(pieces) > 3
    assert "".join(pieces).strip() == request.answer.strip()


BAD_MEDIA = {
    "not a video": ("video", "data:video/mp4;base64,bm90IGEgdmlkZW8="),
    "not base64": ("video", "data:video/mp4;base64,@@@"),
    "not an image": ("image", "data:image/png;base64,bm90IGFuIGltYWdl"),
    "not a sound": ("audio", "data:audio/wav;base64,bm90IGEgc291bmQ="),
    "a file of another folder": ("video", Path(__file__).as_uri()),
    "an address of no kind": ("video", "gopher://127.0.0.1/clip.mp4"),
}


@pytest.mark.parametrize("kind,address", BAD_MEDIA.values(), ids=BAD_MEDIA)
def test_bad_media_are_refused_with_a_reason(server, requests, kind, address):
    _refused_and_goes_on(server, requests, [block(kind, address)])


def test_cut_video_and_missing_sound_are_refused(server, requests, media):
    whole = media["bell"].read_bytes()
    cut = f"data:video/mp4;base64,{base64.b64encode(whole[: len(whole) // 2]).decode()}"
    _refused_and_goes_on(server, requests, [block("video", cut)])
    _refused_and_goes_on(server, requests, [block("audio", data_address(media["silent"]))])


def test_more_than_the_model_takes_is_refused(server, requests, media):
    video = block("video", data_address(media["foreign"]))
    _refused_and_goes_on(server, requests, [video] * 3)
    _refused_and_goes_on(server, requests, [video], num_frames=33)


def _refused_and_goes_on(server, requests, content: list[dict], **options) -> None:
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": "What do you see?"}]}]
    good = next(request for request in requests if request.media)

    async def ask_both():
        async with servers.client(server) as client:
            with pytest.raises(openai.APIStatusError) as refusal:
                await _ask(client, messages, **options)
            return refusal.value, await _ask(client, good.messages(data_address))

    refusal, answer = asyncio.run(ask_both())
    assert 400 <= refusal.status_code < 500, refusal.message
    assert len(refusal.body["message"]) > 20, refusal.body
    assert answer.choices[0].message.content.strip() == good.answer.strip()
