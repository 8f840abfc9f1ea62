"""Drawings of the world's things, and of what makes its sounds."""

from collections.abc import Callable
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from .world import COLOURS


Point = tuple[float, float]
Rng = np.random.Generator


class Canvas:
    """Draws around `(x, y)` in units of `radius`: (0, 0) is the middle, (1, 1) the corner below on the right."""

    def __init__(self, image: Image.Image, centre: Point, radius: float):
        self.draw = ImageDraw.Draw(image)
        self.centre, self.radius = centre, radius

    def _at(self, points: list[Point]) -> list[Point]:
        return [(self.centre[0] + self.radius * x, self.centre[1] + self.radius * y) for x, y in points]

    def polygon(self, points: list[Point], ink: tuple) -> None:
        self.draw.polygon(self._at(points), fill=ink)

    def ellipse(self, corner: Point, opposite: Point, ink: tuple) -> None:
        self.draw.ellipse(self._at([corner, opposite]), fill=ink)

    def box(self, corner: Point, opposite: Point, ink: tuple) -> None:
        self.draw.rectangle(self._at([corner, opposite]), fill=ink)

    def dome(self, corner: Point, opposite: Point, ink: tuple) -> None:
        self.draw.pieslice(self._at([corner, opposite]), 180, 360, fill=ink)

    def line(self, start: Point, end: Point, ink: tuple, width: float = 0.12) -> None:
        self.draw.line(self._at([start, end]), fill=ink, width=max(1, round(width * self.radius)))


def shape_points(shape: str) -> list[Point]:
    """The outline of a shape, as points of a polygon."""
    if shape == "circle":
        return [(0.95 * cos(angle), 0.95 * sin(angle)) for angle in np.linspace(0, 2 * pi, 32, endpoint=False)]
    if shape == "square":
        return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    if shape == "triangle":
        return [(0, -1), (1, 0.85), (-1, 0.85)]
    near, far = 0.32, 1
    quarter = [(near, -far), (near, -near), (far, -near)]
    return [point for x, y in quarter for point in [(x, y)]] + [
        (far, near), (near, near), (near, far), (-near, far), (-near, near), (-far, near), (-far, -near),
        (-near, -near), (-near, -far),
    ]  # fmt: skip


def jitter(colour: tuple[int, ...], rng: Rng, by: int = 15) -> tuple[int, ...]:
    return tuple(int(value) for value in np.clip(np.add(colour, rng.integers(-by, by + 1, size=3)), 0, 255))


def random_ground(rng: Rng) -> tuple[int, ...]:
    """A dull, dark colour."""
    return tuple(int(value) for value in rng.integers(5, 75) + rng.integers(0, 20, size=3))


def _bell(canvas: Canvas, ink: tuple, dark: tuple, rng: Rng) -> None:
    canvas.ellipse((-0.2, 0.6), (0.2, 1.0), dark)
    canvas.dome((-0.6, -0.9), (0.6, 0.5), ink)
    canvas.polygon([(-0.6, -0.25), (0.6, -0.25), (1, 0.7), (-1, 0.7)], ink)


def _drum(canvas: Canvas, ink: tuple, dark: tuple, rng: Rng) -> None:
    canvas.box((-0.9, -0.1), (0.9, 0.7), ink)
    canvas.ellipse((-0.9, 0.45), (0.9, 0.95), ink)
    canvas.ellipse((-0.9, -0.4), (0.9, 0.2), (235, 235, 225))
    canvas.line((-0.8, -1), (0.1, -0.15), dark)
    canvas.line((0.8, -1), (-0.1, -0.15), dark)


def _siren(canvas: Canvas, ink: tuple, dark: tuple, rng: Rng) -> None:
    canvas.box((-0.8, 0.5), (0.8, 0.9), dark)
    canvas.dome((-0.55, -0.3), (0.55, 1.3), ink)
    for angle in np.linspace(-0.95, -0.05, 5) * pi:
        canvas.line((0.75 * cos(angle), 0.2 + 0.75 * sin(angle)), (1.1 * cos(angle), 0.2 + 1.1 * sin(angle)), ink)


def _rain(canvas: Canvas, ink: tuple, dark: tuple, rng: Rng) -> None:
    for x, y, size in ((-0.5, -0.4, 0.4), (0, -0.6, 0.45), (0.5, -0.4, 0.4)):
        canvas.ellipse((x - size, y - size), (x + size, y + size), (205, 210, 215))
    for x in (-0.7, -0.25, 0.2, 0.65):
        y = rng.uniform(0.1, 0.4)
        canvas.line((x, y), (x - 0.2, y + 0.5), ink)


def _bird(canvas: Canvas, ink: tuple, dark: tuple, rng: Rng) -> None:
    canvas.ellipse((-0.8, -0.3), (0.5, 0.6), ink)
    canvas.ellipse((0.15, -0.75), (0.75, -0.1), ink)
    canvas.polygon([(0.7, -0.55), (1.1, -0.4), (0.7, -0.25)], (250, 160, 30))
    canvas.polygon([(-0.7, 0), (-1.1, -0.5), (-1, 0.3)], ink)
    canvas.polygon([(-0.4, 0), (0.2, 0), (-0.3, 0.4 + rng.uniform(0, 0.3))], dark)


def _engine(canvas: Canvas, ink: tuple, dark: tuple, rng: Rng) -> None:
    turn = rng.uniform(0, pi / 4)
    for angle in turn + np.arange(8) * pi / 4:
        canvas.line((0, 0), (1.05 * cos(angle), 1.05 * sin(angle)), ink, width=0.35)
    canvas.ellipse((-0.75, -0.75), (0.75, 0.75), ink)
    canvas.ellipse((-0.3, -0.3), (0.3, 0.3), dark)


def _clock(canvas: Canvas, ink: tuple, dark: tuple, rng: Rng) -> None:
    canvas.ellipse((-1, -1), (1, 1), ink)
    canvas.ellipse((-0.8, -0.8), (0.8, 0.8), (240, 240, 235))
    for length, angle in zip((0.7, 0.45), rng.uniform(0, 2 * pi, size=2), strict=True):
        canvas.line((0, 0), (length * cos(angle), length * sin(angle)), dark, width=0.16)


def _whistle(canvas: Canvas, ink: tuple, dark: tuple, rng: Rng) -> None:
    canvas.ellipse((-1, -0.5), (0.2, 0.7), ink)
    canvas.box((-0.5, -0.5), (1.1, -0.1), ink)
    canvas.ellipse((-0.6, -0.1), (-0.2, 0.3), dark)
    canvas.line((-0.9, 0.4), (-1.0, 1.0), dark)


SOUNDING: dict[str, Callable[[Canvas, tuple, tuple, Rng], None]] = {
    "bell": _bell,
    "drum": _drum,
    "siren": _siren,
    "rain": _rain,
    "bird": _bird,
    "engine": _engine,
    "clock": _clock,
    "whistle": _whistle,
}


def draw_shape(image: Image.Image, shape: str, ink: tuple, centre: Point, radius: float) -> None:
    Canvas(image, centre, radius).polygon(shape_points(shape), ink)


def draw_sounding(image: Image.Image, kind: str, centre: Point, radius: float, rng: Rng) -> None:
    """Draw what makes a sound, in any colour."""
    ink = jitter(list(COLOURS.values())[rng.integers(len(COLOURS))], rng, by=40)
    dark = tuple(int(value * rng.uniform(0.25, 0.5)) for value in ink)
    SOUNDING[kind](Canvas(image, centre, radius), ink, dark, rng)
