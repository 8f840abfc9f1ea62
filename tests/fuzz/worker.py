"""A process that opens damaged input and says what came of it; it may crash or hang, and is watched."""

import functools
import resource
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from transformers_videollama import (
    TINY_CHECKPOINT,
    MediaError,
    VideoLlamaProcessor,
    load_image,
    load_sound,
    load_video,
)

from .inputs import PICTURES, SOUNDS, VIDEOS
from .mutations import mutate_bytes, mutate_chat


MAKERS = {**VIDEOS, **SOUNDS, **PICTURES}
KINDS = (*MAKERS, "chat")


@functools.cache
def good(kind: str) -> bytes:
    """The intact file of a kind."""
    with TemporaryDirectory() as folder:
        return MAKERS[kind](Path(folder))


def open_media(kind: str, damaged: bytes) -> None:
    if kind in PICTURES:
        load_image(damaged)
        return
    sound = load_sound(damaged) if kind in SOUNDS else load_video(damaged).sound
    if sound is not None:
        sound.read(0, min(0.5, sound.duration), 16_000)


@functools.cache
def processor() -> VideoLlamaProcessor:
    return VideoLlamaProcessor.from_pretrained(TINY_CHECKPOINT)


def open_chat(damaged: Any) -> None:
    processor().apply_chat_template(
        damaged, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )


def chat() -> list:
    content = [
        {"type": "image", "image": good("png")},
        {"type": "video", "video": good("mp4"), "num_frames": 2},
        {"type": "audio", "audio": good("wav")},
        {"type": "text", "text": "What is this?"},
    ]
    return [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": content},
        {"role": "assistant", "content": "A ball."},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]


def work(connection: Connection) -> None:
    """Answers each (kind, seed) with "" where it ended well, or what is wrong with how it ended."""
    connection.send("ready")
    while True:
        kind, seed = connection.recv()
        rng = np.random.default_rng([*kind.encode(), seed])
        damaged = mutate_chat(chat(), rng) if kind == "chat" else mutate_bytes(good(kind), rng)
        connection.send("begun")
        before = _peak_memory()
        connection.send(_open(kind, damaged) or _too_much_memory(before))


def _open(kind: str, damaged: Any) -> str:
    documented = ValueError if kind == "chat" else MediaError
    try:
        open_chat(damaged) if kind == "chat" else open_media(kind, damaged)
    except documented as error:
        return "" if len(str(error)) > 10 else f"an error that says nothing: {error!r}"
    except Exception as error:  # noqa: BLE001 (which none should be: this is what is looked for)
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _too_much_memory(before: int) -> str:
    grown = _peak_memory() - before
    return f"{grown / 2**30:.1f} GiB more memory" if grown > 2**30 else ""
