"""Scenes -> short mp4 files (H.264, and AAC where there is sound)."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from .model import IMAGE_SIZE
from .pictures import draw_shape, draw_sounding, jitter, random_ground
from .sounds import SAMPLING_RATE, synthesise
from .world import COLOURS, Scene, Thing


FPS = 8
NUM_FRAMES = 24
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}


def render(scene: Scene, path: Path, rng: np.random.Generator) -> Path:
    """Write the clip of a scene, 3 seconds of 112 x 112 pixels."""
    sound = synthesise(scene.sound, NUM_FRAMES / FPS, rng) if scene.sound else None
    return write_clip(path, draw_things(scene.things or (), rng), sound)


def render_sounding(kind: str, path: Path, rng: np.random.Generator) -> Path:
    """Write a silent clip of what makes a sound."""
    return write_clip(path, draw_drifting(kind, rng, NUM_FRAMES), None)


def draw_things(things: tuple[Thing, ...], rng: np.random.Generator) -> np.ndarray:
    """(frames, height, width, 3) uint8: things that move evenly and never touch."""
    return np.stack([image for image, _ in ThingsInMotion(things, rng).frames(range(NUM_FRAMES))])


class ThingsInMotion:
    """How things look and where they are in every frame of a clip."""

    def __init__(self, things: tuple[Thing, ...], rng: np.random.Generator):
        self.things = things
        self.radii = rng.uniform(9, 15 if len(things) < 3 else 12, size=len(things))
        self.paths = _paths(things, self.radii, rng)
        self.inks = [jitter(COLOURS[thing.colour], rng) for thing in things]
        self.ground = random_ground(rng)

    def frames(self, numbers: Iterable[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of a picture (height, width, 3) and of which thing is where (height, width): 0 for none, from 1 on."""
        for number in numbers:
            image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), self.ground)
            where = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE))
            for i, thing in enumerate(self.things):
                for canvas, ink in ((image, self.inks[i]), (where, i + 1)):
                    draw_shape(canvas, thing.shape, ink, self.paths[i, number], self.radii[i])
            yield np.asarray(image), np.asarray(where)


def draw_drifting(kind: str, rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """(frames, height, width, 3) uint8: what makes a sound, which drifts a little."""
    radius = rng.uniform(24, 38)
    start, end = rng.uniform(1.1 * radius, IMAGE_SIZE - 1.1 * radius, size=(2, 2))
    end = start + 0.4 * (end - start)
    ground, seed = random_ground(rng), int(rng.integers(1 << 31))
    frames = []
    for share in np.linspace(0, 1, num_frames):
        image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), ground)
        draw_sounding(image, kind, tuple(start + share * (end - start)), radius, np.random.default_rng(seed))
        frames.append(np.asarray(image))
    return np.stack(frames)


def _paths(things: tuple[Thing, ...], radii: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(things, frames, 2): middles that stay in the picture and apart from each other."""
    steps = np.array([STEPS[thing.motion] for thing in things]).reshape(-1, 1, 2)
    while True:
        travel = rng.uniform(32, 56, size=(len(things), 1, 1)) * steps
        margins = radii.reshape(-1, 1, 1) + 2
        low = margins + np.maximum(-travel, 0)
        high = IMAGE_SIZE - margins - np.maximum(travel, 0)
        paths = rng.uniform(low, high) + np.linspace(0, 1, NUM_FRAMES).reshape(1, -1, 1) * travel
        pairs = [(i, j) for i in range(len(things)) for j in range(i)]
        if all(np.hypot(*(paths[i] - paths[j]).T).min() > 1.3 * (radii[i] + radii[j]) for i, j in pairs):
            return paths


def write_clip(path: Path, frames: np.ndarray, sound: np.ndarray | None) -> Path:
    """Encode frames (frames, height, width, 3) uint8 and sound (samples,) at 16 kHz."""
    with av.open(str(path), "w", format="mp4") as container:
        options = {"preset": "ultrafast", "crf": "18", "threads": "1", "g": "8"}
        video = container.add_stream("h264", rate=FPS, options=options)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        audio = None if sound is None else container.add_stream("aac", rate=SAMPLING_RATE, layout="mono")
        for number, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if audio is not None:
            piece = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            piece.sample_rate = SAMPLING_RATE
            container.mux(audio.encode(piece))
            container.mux(audio.encode())
    return path
