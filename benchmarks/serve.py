"""
Answers a second of `videollama serve`, asked over loopback by OpenAI's client: the same question about a short video
with sound, one after the other and many at once; against `generate` in this process. Runs in the environment of
`make serve-test`, with the engines that it has.
"""

import asyncio
import base64
import importlib.util
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from examples.render_clip import render_clip
from transformers_videollama import TINY_CHECKPOINT

from .measure import Options, Timing, seconds_of
from .models import model_of, processor_of


__all__ = ["run"]

ENGINES = {"transformers": (), "vllm": ("--", "--enforce-eager", "--max-model-len", "512")}
AT_ONCE, REQUESTS, TOKENS = (1, 8), 24, 24


def run(options: Options) -> dict[str, Any]:
    """Rows: `generate`, and each engine with one and with many requests at once."""
    if options.size != "tiny" or importlib.util.find_spec("openai") is None:
        raise SystemExit("serve measures the tiny model, in the environment of `make serve-test`: --size tiny")
    with tempfile.TemporaryDirectory() as name:
        clip = render_clip(Path(name) / "clip.mp4", seconds=3)
        rows = [row_of_generate(clip, options)]
        for engine, words in ENGINES.items():
            if engine == "transformers" or importlib.util.find_spec(engine) is not None:
                rows += rows_of_engine(engine, words, clip, Path(name), options)
    for row in rows:
        row["of generate"] = row["answers a second"] / rows[0]["answers a second"]
    return {"rows": rows}


def row_of_generate(clip: Path, options: Options) -> dict[str, Any]:
    model, processor = model_of(options), processor_of(options.size)
    content = [{"type": "video", "path": str(clip)}, {"type": "text", "text": "What is it?"}]
    chat = [{"role": "user", "content": content}]

    def answer() -> None:
        inputs = processor.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(model.device, model.dtype)
        model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)

    timing = seconds_of(answer, options.repeats, options.device)
    return {"engine": "generate", "at once": 1, "seconds an answer": timing, "answers a second": 1 / timing.median_s}


def rows_of_engine(engine: str, words: tuple[str, ...], clip: Path, folder: Path, options: Options) -> list[dict]:
    from serving import server as servers

    port = servers.free_port()
    command = [str(Path(sys.executable).with_name("videollama")), "serve", "--engine", engine, "--port", str(port)]
    command += ["--dtype", str(options.dtype).removeprefix("torch."), *words]
    address = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
    content = [servers.block("video", address), {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": content}]

    async def ask_all(url: str, at_once: int) -> tuple[list[float], float]:
        free = asyncio.Semaphore(at_once)
        async with servers.client(url) as client:

            async def ask() -> float:
                async with free:
                    started = time.perf_counter()
                    await client.chat.completions.create(
                        model=str(TINY_CHECKPOINT), messages=messages, temperature=0, max_tokens=TOKENS
                    )
                    return time.perf_counter() - started

            await ask()  # the first does not count
            started = time.perf_counter()
            seconds = await asyncio.gather(*(ask() for _ in range(REQUESTS)))
            return list(seconds), time.perf_counter() - started

    rows = []
    with servers.running(command, port, folder / f"{engine}.txt") as url:
        for at_once in AT_ONCE:
            runs = [asyncio.run(ask_all(url, at_once)) for _ in range(options.repeats)]
            each = [seconds for run, _ in runs for seconds in run]
            total = statistics.median(total for _, total in runs)
            rows.append(
                {
                    "engine": engine,
                    "at once": at_once,
                    "seconds an answer": Timing.of(each),
                    "answers a second": REQUESTS / total,
                }
            )
    return rows
