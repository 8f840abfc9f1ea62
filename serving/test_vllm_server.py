"""vLLM's server, asked over loopback by OpenAI's client."""

import asyncio
import base64
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest

from transformers_videollama import TINY_CHECKPOINT

from .media import MAX_TOKENS


STARTING_SECONDS = 300


@pytest.fixture(scope="module")
def server(media, tmp_path_factory):
    """Address of a server that opens files of one folder alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
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
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--enforce-eager",
        "--trust-request-mm-kwargs",
    ]
    command += [word for option in options.items() for word in option]
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ}) as process,
    ):
        try:
            yield _when_ready(f"http://127.0.0.1:{port}/v1", process, log)
        finally:
            process.terminate()


def _when_ready(address: str, process: subprocess.Popen, log: Path) -> str:
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
    last = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < last:
        if process.poll() is not None:
            break
        try:
            client.models.list()
        except openai.APIConnectionError:
            time.sleep(1)
        else:
            return address
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")


def _data_address(path: Path) -> str:
    kinds = {".mp4": "video/mp4", ".png": "image/png", ".wav": "audio/wav"}
    return f"data:{kinds[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _client(server: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server, api_key="none", max_retries=0, timeout=120)


async def _ask(client: openai.AsyncOpenAI, messages: list[dict], num_frames: int | None = None, **options):
    extra = {} if num_frames is None else {"media_io_kwargs": {"video": {"num_frames": num_frames}}}
    return await client.chat.completions.create(
        model="tiny", messages=messages, temperature=0, max_tokens=MAX_TOKENS, extra_body=extra, **options
    )


def test_requests_at_once(server, requests, encode):
    """20 requests of every kind; prompts are as long as the processor's, and answers those of `generate`."""

    async def ask_all():
        async with _client(server) as client:
            return await asyncio.gather(*(_ask(client, r.messages(_data_address), r.num_frames) for r in requests))

    for request, response in zip(requests, asyncio.run(ask_all()), strict=True):
        assert response.choices[0].message.content.strip() == request.answer.strip(), request
        assert response.usage.prompt_tokens == encode(request)["input_ids"].shape[1], request


def test_files_of_the_folder(server, requests):
    request = next(request for request in requests if request.media)

    async def ask():
        async with _client(server) as client:
            return await _ask(client, request.messages())

    assert asyncio.run(ask()).choices[0].message.content.strip() == request.answer.strip()


def test_streamed(server, requests):
    request = next(request for request in requests if request.media)

    async def ask() -> list[str]:
        async with _client(server) as client:
            stream = await _ask(client, request.messages(_data_address), stream=True)
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
    _refused_and_goes_on(server, requests, [_block(kind, address)])


def test_cut_video_and_missing_sound_are_refused(server, requests, media):
    whole = media["bell"].read_bytes()
    cut = f"data:video/mp4;base64,{base64.b64encode(whole[: len(whole) // 2]).decode()}"
    _refused_and_goes_on(server, requests, [_block("video", cut)])
    _refused_and_goes_on(server, requests, [_block("audio", _data_address(media["silent"]))])


def test_more_than_the_model_takes_is_refused(server, requests, media):
    video = _block("video", _data_address(media["foreign"]))
    _refused_and_goes_on(server, requests, [video] * 3)
    _refused_and_goes_on(server, requests, [video], num_frames=33)


def _block(kind: str, address: str) -> dict:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": address}}


def _refused_and_goes_on(server, requests, content: list[dict], **options) -> None:
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": "What do you see?"}]}]
    good = next(request for request in requests if request.media)

    async def ask_both():
        async with _client(server) as client:
            with pytest.raises(openai.APIStatusError) as refusal:
                await _ask(client, messages, **options)
            return refusal.value, await _ask(client, good.messages(_data_address))

    refusal, answer = asyncio.run(ask_both())
    assert 400 <= refusal.status_code < 500, refusal.message
    assert len(refusal.body["message"]) > 20, refusal.body
    assert answer.choices[0].message.content.strip() == good.answer.strip()
