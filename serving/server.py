"""A server in a process of its own, and OpenAI's client to ask it."""

import base64
import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import openai

from .media import MAX_TOKENS


STARTING_SECONDS = 300
MEDIA_TYPES = {".mp4": "video/mp4", ".png": "image/png", ".wav": "audio/wav"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path, environment: dict | None = None) -> Iterator[str]:
    """Runs a server while the block runs -> its address."""
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            _wait_until_ready(port, process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _wait_until_ready(port: int, process: subprocess.Popen, log: Path) -> None:
    last = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < last and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.5)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")


def client(address: str) -> openai.AsyncOpenAI:
    """One for each event loop."""
    return openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0, timeout=300)


async def ask(asking: openai.AsyncOpenAI, model: str, messages: list[dict], extra: dict | None = None, **options):
    return await asking.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=MAX_TOKENS, extra_body=extra, **options
    )


def data_address(path: Path) -> str:
    return f"data:{MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def block(kind: str, address: str) -> dict:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": address}}
