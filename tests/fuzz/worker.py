"""A process that opens damaged input and says what came of it; it may crash or hang, and is watched."""

import io
import resource
import wave
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from examples.render_clip import render_clip, strike_bell
from transformers_videollama import (
    TINY_CHECKPOINT,
    MediaError,
    VideoLlamaProcessor,
    load_image,
    load_sound,
    load_video,
)

from .mutations import mutate_bytes, mutate_chat


KINDS = ("mp4", "wav", "png", "chat")


class Inputs:
    """Good input of every kind, and what is done with it."""

    def __init__(self):
        self.processor = VideoLlamaProcessor.from_pretrained(TINY_CHECKPOINT)
        with TemporaryDirectory() as folder:
            self.mp4 = render_clip(Path(folder) / "clip.mp4", seconds=1.0, size=(64, 48)).read_bytes()
        self.wav, self.png = _wav(), _png()

    def open_mp4(self, rng: np.random.Generator) -> None:
        damaged = mutate_bytes(self.mp4, rng)
        video = load_video(damaged)
        if video.sound is not None:
            video.sound.read(0, min(0.5, video.sound.duration), 16_000)

    def open_wav(self, rng: np.random.Generator) -> None:
        sound = load_sound(mutate_bytes(self.wav, rng))
        sound.read(0, min(0.5, sound.duration), 16_000)

    def open_png(self, rng: np.random.Generator) -> None:
        load_image(mutate_bytes(self.png, rng))

    def open_chat(self, rng: np.random.Generator) -> None:
        self.processor.apply_chat_template(
            mutate_chat(self._chat(), rng),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )

    def _chat(self) -> list:
        content = [
            {"type": "image", "image": self.png},
            {"type": "video", "video": self.mp4, "num_frames": 2},
            {"type": "audio", "audio": self.wav},
            {"type": "text", "text": "What is this?"},
        ]
        return [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": content},
            {"role": "assistant", "content": "A ball."},
            {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
        ]


def _wav() -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((strike_bell(0.5, np.random.default_rng(0))[0, ::5] * 32767).astype("<i2").tobytes())
    return target.getvalue()


def _png() -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(target, "PNG")
    return target.getvalue()


def work(connection: Connection) -> None:
    """Answers each (kind, seed) with "" where it ended well, or what is wrong with how it ended."""
    inputs = Inputs()
    connection.send("ready")
    while True:
        kind, seed = connection.recv()
        before = _peak_memory()
        connection.send(_open(inputs, kind, seed) or _too_much_memory(before))


def _open(inputs: Inputs, kind: str, seed: int) -> str:
    rng = np.random.default_rng([KINDS.index(kind), seed])
    documented = ValueError if kind == "chat" else MediaError
    try:
        getattr(inputs, f"open_{kind}")(rng)
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
