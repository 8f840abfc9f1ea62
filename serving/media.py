"""Requests about media, as vLLM and OpenAI's clients send them, and the answers of `generate` to compare with."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from examples.render_clip import SAMPLING_RATE, render_clip, strike_bell
from examples.tiny.render import draw_things, render
from examples.tiny.world import Scene, Thing


MAX_TOKENS = 32

RED_CIRCLE, BLUE_SQUARE = Thing("circle", "red", "left"), Thing("square", "blue", "up")


@dataclass(frozen=True)
class Request:
    """A user's message: media as (kind, file), and a question."""

    question: str
    media: tuple[tuple[str, Path], ...] = ()
    num_frames: int | None = None  # of its videos, where it is not the checkpoint's default
    answer: str = field(default="", compare=False)

    def messages(self, address=Path.as_uri) -> list[dict]:
        """In OpenAI's words."""
        content: list[dict] = [
            {"type": f"{kind}_url", f"{kind}_url": {"url": address(path)}} for kind, path in self.media
        ]
        return [{"role": "user", "content": [*content, {"type": "text", "text": self.question}]}]

    def chat(self) -> list[dict]:
        """In the words of transformers."""
        content = [{"type": kind, "path": str(path)} for kind, path in self.media]
        return [{"role": "user", "content": [*content, {"type": "text", "text": self.question}]}]


def render_media(folder: Path) -> dict[str, Path]:
    """
    Clips of the tiny model's world, a clip and a sound of other sizes and rates, and a picture. The sound is a WAV:
    of an AAC track, vLLM also keeps the codec's padding at the end, which moves the clips that a sound is cut into.
    """
    rng = np.random.default_rng(0)
    picture = folder / "picture.png"
    Image.fromarray(draw_things((BLUE_SQUARE,), rng)[0]).save(picture)
    strokes = folder / "strokes.wav"
    soundfile.write(strokes, np.concatenate([strike_bell(2.5, rng), strike_bell(2.5, rng)]).T, SAMPLING_RATE)
    return {
        "silent": render(Scene((BLUE_SQUARE,)), folder / "silent.mp4", rng),
        "bell": render(Scene((RED_CIRCLE,), "bell"), folder / "bell.mp4", rng),
        "two": render(Scene((RED_CIRCLE, BLUE_SQUARE), "rain"), folder / "two.mp4", rng),
        "foreign": render_clip(folder / "foreign.mp4"),  # 75 frames of 320 x 240
        "strokes": strokes,  # 44.1 kHz, two channels
        "picture": picture,
    }


def mixed_requests(media: dict[str, Path]) -> list[Request]:
    """20 requests: of every kind of item, several items, and several numbers of frames."""

    def video(name: str) -> tuple[str, Path]:
        return "video", media[name]

    def sound(name: str) -> tuple[str, Path]:
        return "audio", media[name]

    picture = ("image", media["picture"])
    return [
        Request("What do you see?"),
        Request("How many objects are there?"),
        Request("What do you see?", (picture,)),
        Request("What colour is the object?", (picture,)),
        Request("What do you see?", (video("silent"),)),
        Request("How does the square move?", (video("silent"),)),
        Request("What colour is the circle?", (video("bell"),)),
        Request("How many objects are there?", (video("two"),)),
        Request("What happens in the video?", (video("foreign"),)),
        Request("What do you hear?", (sound("bell"),)),
        Request("What can you hear?", (sound("two"),)),
        Request("What do you hear?", (sound("strokes"),)),
        Request("What do you see and hear?", (sound("bell"), video("bell"))),
        Request("What do you hear?", (sound("two"), video("two"))),
        Request("What do you see?", (video("silent"), video("bell"))),
        Request("What do you see?", (picture, video("two"))),
        Request("What do you see?", (video("two"),), num_frames=16),
        Request("How does the circle move?", (video("bell"),), num_frames=16),
        Request("What do you see?", (video("foreign"),), num_frames=32),
        Request("What do you see and hear?", (sound("strokes"), video("foreign")), num_frames=32),
    ]
