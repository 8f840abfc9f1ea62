"""
Clips of somebody's own, rendered in a second: things that the package's tiny model has never seen, sounds that it has
never heard, and answers that it has never given. Every second clip has sound.
"""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from examples.tiny.render import FPS, NUM_FRAMES, write_clip
from examples.tiny.sounds import SAMPLING_RATE


__all__ = ["QUESTIONS", "answers_of", "render_own_clips", "rows_of"]

SIDE = 112
MIDDLE, REACH = SIDE / 2, 30
THINGS = {"a bell": (255, 130, 20), "a drum": (255, 120, 200), "a clock": (30, 215, 215), "a bird": (150, 90, 40)}
PATHS = {
    "It goes down.": ((0, -1), (0, 1)),
    "It goes up.": ((0, 1), (0, -1)),
    "It goes left.": ((1, 0), (-1, 0)),
    "It is still.": ((0, 0), (0, 0)),
}
SOUNDS = {"a hum": 220.0, "a ping": 1400.0}
QUESTIONS = ("What do you see?", "How does it move?", "What do you hear?")


def _draw(thing: str, x: float, y: float, radius: float, ground: tuple[int, ...]) -> np.ndarray:
    image = Image.new("RGB", (SIDE, SIDE), ground)
    canvas = ImageDraw.Draw(image)
    box = (x - radius, y - radius, x + radius, y + radius)
    ink = THINGS[thing]
    if thing == "a bell":
        canvas.pieslice((box[0], box[1], box[2], y + 2 * radius), 180, 360, fill=ink)
    elif thing == "a drum":
        canvas.rectangle((box[0], y - 0.6 * radius, box[2], y + 0.6 * radius), fill=ink)
    elif thing == "a clock":
        canvas.ellipse(box, outline=ink, width=round(0.35 * radius))
        canvas.line((x, y, x, y - 0.7 * radius), fill=ink, width=3)
    else:
        wings = ((-1.4, -0.6), (0, 0.3), (1.4, -0.6), (0, 1))
        canvas.polygon([(x + radius * right, y + radius * down) for right, down in wings], fill=ink)
    return np.asarray(image)


def _frames(thing: str, path: str, rng: np.random.Generator) -> np.ndarray:
    """(frames, height, width, 3) uint8"""
    radius, ground = rng.uniform(13, 18), tuple(int(value) for value in rng.integers(5, 60, size=3))
    start, end = (MIDDLE + REACH * np.array(point) for point in PATHS[path])
    shift = rng.uniform(-9, 9, size=2)
    places = start + np.linspace(0, 1, NUM_FRAMES)[:, None] * (end - start) + shift
    return np.stack([_draw(thing, x, y, radius, ground) for x, y in places])


def _samples(sound: str, rng: np.random.Generator) -> np.ndarray:
    """(samples,) float32: a tone with overtones."""
    time = np.arange(SAMPLING_RATE * NUM_FRAMES // FPS) / SAMPLING_RATE
    pitch = SOUNDS[sound] * rng.uniform(0.9, 1.1)
    tone = sum(np.sin(2 * np.pi * pitch * n * time) / n for n in (1, 2, 3))
    return (0.3 * tone).astype(np.float32)


def answers_of(thing: str, path: str, sound: str | None) -> tuple[str, ...]:
    """The right answer to each of the questions."""
    return f"I see {thing}.", path, f"I hear {sound or 'no sound'}."


def render_own_clips(folder: Path, count: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Name of each clip in `folder`, and the answers to the questions about it."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = list(itertools.product(THINGS, PATHS))
    kinds = [kinds[i] for start in range(0, count, len(kinds)) for i in rng.permutation(len(kinds))][:count]
    clips = {}
    for number, (thing, path) in enumerate(kinds):
        sound = None if number % 2 else str(rng.choice(list(SOUNDS)))
        write_clip(
            folder / f"{number}.mp4", _frames(thing, path, rng), None if sound is None else _samples(sound, rng)
        )
        clips[f"{number}.mp4"] = answers_of(thing, path, sound)
    return clips


def rows_of(clips: dict[str, tuple[str, ...]], folder: str) -> list[dict]:
    """A conversation for every question about every clip."""
    return [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "video", "path": f"{folder}/{name}"}, {"type": "text", "text": question}],
                },
                {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            ]
        }
        for name, answers in clips.items()
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]
